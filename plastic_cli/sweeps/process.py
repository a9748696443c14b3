"""Starts and ends the process of a run or step: a fork where the system can do this, else a new process.

A new process imports torch, which takes longer than many a run on small data. See `plastic_cli.sweeps.fork_server`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from plastic_cli.signals import INTERRUPTED

MODULE = "plastic_cli"


class Process(Protocol):
    """A process; what `subprocess.Popen` has of it."""

    pid: int
    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired after `timeout` seconds."""

    def terminate(self) -> None:
        """Send a SIGTERM."""


def start(arguments: list[str], environment: Mapping[str, str], output: IO[bytes]) -> Process:
    """Start `plastic` with these arguments, as a process that ends with this process."""
    if can_fork():
        with suppress(OSError):
            return _server_of(environment).start(arguments, output)
    return subprocess.Popen(
        command(arguments),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        # Ctrl-C in the terminal goes to the sweep only, which then stops its runs.
        start_new_session=True,
    )


def command(arguments: list[str], parent: str | None = None) -> list[str]:
    """Return the command line for `plastic` with these arguments, as a process that ends with its parent.

    With -P Python imports nothing from the working folder. parent: the number of the parent; None for this process.
    """
    return [sys.executable, "-P", "-m", "plastic_cli.sweeps.child", parent or str(os.getpid()), MODULE, *arguments]


def kill(process: Process) -> None:
    """Kill a process and, if the system has process groups, the processes that it started."""
    with suppress(ProcessLookupError):
        if process.returncode is not None:
            return
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGTERM)


def can_fork() -> bool:
    """Return whether this system has what the fork server needs."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        # A Linux before 5.3.
        return False
    return True


class Fork:
    """A process that the fork server started."""

    def __init__(self, pid: int, answers: IO[bytes]) -> None:
        """Watch the process `pid`; answers: the pipe with its exit code, see the fork server."""
        self.pid, self._answers = pid, answers
        self.returncode: int | None = None
        # A number of a process can be given again, this file is of the one process.
        self._file: int | None = None
        with suppress(ProcessLookupError):
            self._file = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            answer = self._answers.readline()
            if not answer and self._file is not None:
                # The server was killed, and the process has got a SIGTERM.
                select.select([self._file], [], [])
            self.returncode = int(answer) if answer else INTERRUPTED
            self._answers.close()
            if self._file is not None:
                os.close(self._file)
                self._file = None
        return self.returncode

    def terminate(self) -> None:
        """Send a SIGTERM."""
        if self._file is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._file, signal.SIGTERM)


class Server:
    """The fork server for processes with one environment. It ends with this process, and if nobody uses it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it."""
        self.environment = dict(environment)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "plastic_cli.sweeps.fork_server"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    def start(self, arguments: list[str], output: IO[bytes]) -> Fork:
        """Start `plastic` with these arguments; raises OSError if the server has ended."""
        request = {
            "folder": str(Path.cwd()),
            "module": MODULE,
            "arguments": arguments,
            "plain": command(arguments, "PARENT"),
        }
        mine, theirs = os.pipe()
        answers = os.fdopen(mine, "rb", buffering=0)
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [output.fileno(), theirs])
        finally:
            os.close(theirs)
        pid = answers.readline()
        if not pid:
            raise ConnectionResetError("the fork server has ended")
        return Fork(int(pid), answers)

    def is_alive(self) -> bool:
        """Return whether the server runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Release the socket of a server that has ended."""
        self._channel.close()


_servers: list[Server] = []
_lock = threading.Lock()


def _server_of(environment: Mapping[str, str]) -> Server:
    """Return the running server for this environment, a new one if there is none."""
    with _lock:
        for server in list(_servers):
            if not server.is_alive():
                _servers.remove(server)
                server.close()
            elif server.environment == environment:
                return server
        _servers.append(Server(environment))
        return _servers[-1]
