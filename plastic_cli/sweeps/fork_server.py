"""`python -m plastic_cli.sweeps.fork_server`: import what runs need once, and fork a process for each of them (Linux).

Its standard input is a socket of `plastic_cli.sweeps.process`. A message holds a request in JSON, and two files: the
output of the process and a pipe. The pipe receives a line with the number of the process, and at its end a line with
its exit code. The server ends if nobody uses it any more; its processes then get a SIGTERM, see
`plastic_cli.sweeps.child`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from plastic_cli.sweeps.child import run_module

IDLE_SECONDS = 20.0
"""Time without a process after which the server ends."""
MOST_BYTES = 1 << 16
"""Bytes of a request."""
ALWAYS = ("torch", "plastic_cli.app", "plastic_cli.commands.train", "plastic_cli.runs.run")
"""Modules that every run imports."""
ONCE_USED = (
    "torch._dynamo",
    "torchvision",
    "numba",
    "pandas",
    "matplotlib.pyplot",
    "plotnine",
    "scipy.stats",
    "sklearn",
)
"""Modules that take long to import. The server imports those that one of its processes has imported."""


@dataclass(frozen=True)
class Request:
    """A process to start. module: runs as a program. plain: the command line of the same, without a fork."""

    folder: str
    module: str
    arguments: list[str]
    plain: list[str]


class Running(NamedTuple):
    """A process of the server. ended: a file that can be read once it has ended. reply: the pipe of the request.

    imported: receives the modules of ONCE_USED that it has imported.
    """

    pid: int
    ended: int
    reply: int
    imported: socket.socket


def serve(channel: socket.socket) -> None:
    """Answer requests. In a forked process this runs the module, which ends it."""
    running: dict[int, Running] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while events := selector.select(None if running else IDLE_SECONDS):
            for key, _ in events:
                if key.fileobj is not channel:
                    process = running.pop(key.fd)
                    selector.unregister(process.ended)
                    _finish(process)
                    continue
                message, files, _, _ = socket.recv_fds(channel, MOST_BYTES, 2)
                if not message:
                    return
                output, reply = files
                request = Request(**json.loads(message))
                here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                is_safe = _has_one_thread()
                server, pid = os.getpid(), os.fork()
                if pid == 0:
                    for file in (reply, *(number for each in running.values() for number in (each.ended, each.reply))):
                        os.close(file)
                    here.close()
                    selector.close()
                    channel.detach()
                    _become(request, output, server, there if is_safe else None)
                    return
                os.close(output)
                there.close()
                _tell(reply, pid)
                process = Running(pid, os.pidfd_open(pid), reply, here)
                running[process.ended] = process
                selector.register(process.ended, selectors.EVENT_READ)


def _finish(process: Running) -> None:
    """Tell the exit code of a process that has ended, and import what it imported."""
    _, status = os.waitpid(process.pid, 0)
    _tell(process.reply, os.waitstatus_to_exitcode(status))
    os.close(process.reply)
    os.close(process.ended)
    with process.imported as imported, suppress(OSError):
        imported.setblocking(False)
        for name in imported.recv(MOST_BYTES).decode().split():
            import_quietly(name)


def _tell(reply: int, number: int) -> None:
    # Whoever asked may have ended.
    with suppress(OSError):
        os.write(reply, b"%d\n" % number)


def _become(request: Request, output: int, server: int, imported: socket.socket | None) -> None:
    """Turn this forked process into that of the request, which ends with the server.

    imported: receives the modules that it imports; None if a fork is not safe, and the process has to begin anew.
    """
    # Signals from the terminal go to the sweep only, which then stops its runs.
    os.setsid()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.chdir(request.folder)
    if imported is None or _is_bad_fork():
        plain = [str(server) if part == "PARENT" else part for part in request.plain]
        os.execv(plain[0], plain)
    # As in a process that has just started, these differ from process to process.
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    known = set(sys.modules)
    assert imported is not None
    atexit.register(_report, imported, known)
    run_module(server, request.module, request.arguments)


def _report(imported: socket.socket, known: set[str]) -> None:
    """Tell the server which modules this process has imported."""
    with suppress(OSError):
        imported.send(" ".join(name for name in ONCE_USED if name in sys.modules and name not in known).encode())


def _has_one_thread() -> bool:
    """Return whether this process has one thread: in a fork, the others are missing."""
    return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208


def _is_bad_fork() -> bool:
    """Return whether torch used CUDA before the fork, which cannot use it then."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(getattr(torch.cuda, "_is_in_bad_fork", bool)())


def import_quietly(name: str) -> None:
    """Import a module; a process that needs it says why this does not work."""
    with suppress(Exception):
        importlib.import_module(name)
    # A collection in a forked process would copy the memory of all objects that the server has made.
    gc.freeze()


def main() -> None:
    """Import, and serve the socket that is the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # As the command line does before a module draws.
    os.environ["MPLBACKEND"] = "agg"
    # Arrow, which pandas imports, would start a thread to release memory.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    gc.disable()
    for name in ALWAYS:
        import_quietly(name)
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
