"""The versions and the machine of a run, which are stored with it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from plastic_cli.distribution import installed_version

REPORTED = ("torch", "numpy", "numba", "pandas")


def versions(origin: str | None = None) -> dict[str, str]:
    """Return the versions of Python, of packages that affect results, and of the distribution of the rule."""
    found = {"python": platform.python_version(), "plastic": installed_version()}
    for package in REPORTED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if origin:
        found["rule"] = origin
    return found


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Return the bytes of memory of this machine, or None if the system does not tell (Windows, for example)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def machine(device: str) -> dict[str, Any]:
    """Return system, processor, usable cores, threads of torch, and the device of a run.

    instructions: the vector instructions that torch uses, such as AVX2. They decide the order of sums, and two
    processors of one name can have different ones.
    """
    import torch

    description: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123  not a regular file; read line by line
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
