"""`python -m plastic_cli.sweeps.fork_server`: import what runs need once, and fork a process for each of them (Linux).

Its standard input is a socket of `plastic_cli.sweeps.process`. A message holds a request in JSON and two files: the
output of the process, and a pipe. The pipe receives a line with the number of the process, and at its end a line with
its exit code. If the server cannot fork, it closes the pipe without a line. The server ends if nobody uses it any more.
Its processes then get a SIGTERM, see `plastic_cli.sweeps.child`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from plastic_cli.sweeps.child import run_module

IDLE_SECONDS = 20.0
"""Time without a process after which the server ends."""
LARGEST = 1 << 16
"""The largest request, in bytes."""
IMPORT_ALWAYS = ("torch", "typer", "pydantic", "filelock")
"""Modules that every run imports. None is of plastic: a run imports the code that is there when it starts."""
IMPORT_IF_USED = (
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
    """A process to start: a module that runs as a program in a folder. output, reply: the files of the message."""

    folder: str
    module: str
    arguments: list[str]
    output: int
    reply: int


class Running(NamedTuple):
    """A process of the server. ended: a file that can be read once it has ended. reply: the pipe of its request."""

    pid: int
    ended: int
    reply: int


def serve(channel: socket.socket, imported: socket.socket) -> Request | None:
    """Answer requests. Returns its request in a forked process, and None in the server when it ends.

    imported: here the processes name the modules that they have imported.
    """
    running: dict[int, Running] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while events := selector.select(None if running else IDLE_SECONDS):
            for key, _ in events:
                if key.fileobj is not channel:
                    selector.unregister(key.fd)
                    _finish(running.pop(key.fd))
                    _import_what_was_used(imported)
                    continue
                message, files, _, _ = socket.recv_fds(channel, LARGEST, 2)
                if not message:
                    return None
                request = _read(message, files)
                forked = _fork() if request else None
                if request is None or forked is None:
                    _close(files)
                    continue
                pid, ended = forked
                if pid == 0:
                    _close(number for each in running.values() for number in (each.ended, each.reply))
                    os.close(request.reply)
                    channel.detach()
                    return request
                os.close(request.output)
                _tell(request.reply, pid)
                running[ended] = Running(pid, ended, request.reply)
                selector.register(ended, selectors.EVENT_READ)
    return None


def _read(message: bytes, files: list[int]) -> Request | None:
    """Return the request of a message; None if a part of it is missing, because it is too large or files are scarce."""
    try:
        output, reply = files
        return Request(**json.loads(message), output=output, reply=reply)
    except ValueError:
        return None


def _fork() -> tuple[int, int] | None:
    """Fork, and return the number of the process and a file that can be read once it has ended; 0 and -1 in the fork.

    None if the system has no room for another process, or if this process has threads: a fork has only one of them, and
    the locks of the others stay locked.
    """
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        return None
    try:
        pid = os.fork()
    except OSError:
        return None
    if pid == 0:
        return 0, -1
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None


def _finish(process: Running) -> None:
    """Tell the exit code of a process that has ended."""
    _, status = os.waitpid(process.pid, 0)
    _tell(process.reply, os.waitstatus_to_exitcode(status))
    _close([process.reply, process.ended])


def _import_what_was_used(imported: socket.socket) -> None:
    with suppress(BlockingIOError):
        while names := imported.recv(LARGEST):
            for name in names.decode().split():
                import_quietly(name)


def _tell(reply: int, number: int) -> None:
    # Whoever asked may have ended.
    with suppress(OSError):
        os.write(reply, b"%d\n" % number)


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def run(request: Request, server: int, imported: socket.socket) -> None:
    """Turn this forked process into that of the request, which ends with the server.

    imported: receives the modules that it imports.
    """
    # Signals from the terminal go to the sweep only, which then stops its runs.
    os.setsid()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    for number in (1, 2):
        os.dup2(request.output, number)
    os.close(request.output)
    os.chdir(request.folder)
    # Python gives the module random a new seed in each fork; NumPy does not.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    atexit.register(_report, imported, set(sys.modules))
    run_module(server, request.module, request.arguments)


def _report(imported: socket.socket, known: set[str]) -> None:
    """Tell the server which modules this process has imported."""
    with suppress(OSError):
        if names := [name for name in IMPORT_IF_USED if name in sys.modules and name not in known]:
            imported.send(" ".join(names).encode())


def import_quietly(name: str) -> None:
    """Import a module. The process that needs it shows the error."""
    with suppress(Exception):
        importlib.import_module(name)
    # A collection in a forked process would copy the memory of all objects that the server has made.
    gc.freeze()


def main() -> None:
    """Import, and serve the socket that is the standard input."""
    # As the command line does before a module draws.
    os.environ["MPLBACKEND"] = "agg"
    # Arrow, which pandas imports, would start a thread to release memory.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    gc.disable()
    for name in IMPORT_ALWAYS:
        import_quietly(name)
    server = os.getpid()
    imported, by_a_process = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (imported, by_a_process):
        end.setblocking(False)
    request = serve(socket.socket(fileno=0), imported)
    if request is not None:
        run(request, server, by_a_process)


if __name__ == "__main__":
    main()
