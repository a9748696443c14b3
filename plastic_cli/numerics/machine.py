"""What a run was made with: versions and machine, stored with every run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from plastic_cli.distribution import installed_version

REPORTED = ("torch", "numpy", "numba", "pandas")


def versions(origin: str | None = None) -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on, and the rule's own distribution."""
    found = {"python": platform.python_version(), "plastic": installed_version()}
    for package in REPORTED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if origin:
        found["rule"] = origin
    return found


def machine(device: str) -> dict[str, Any]:
    """Return system, processor, usable cores, torch's threads and the device that a run computes on."""
    import torch

    description: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        description["gpu"] = torch.cuda.get_device_name(device)
    return description


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123  a pseudo-file, read line by line
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
