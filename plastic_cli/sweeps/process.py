"""Starts and ends the process of a run or step: a fork where the system can do this, else a new process.

A new process imports torch, which takes longer than many a run on small data. See `plastic_cli.sweeps.fork_server`.
"""

from __future__ import annotations

import json
import math
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
from plastic_cli.sweeps.fork_server import LARGEST

MODULE = "plastic_cli"


class Process(Protocol):
    """The part of `subprocess.Popen` that a sweep uses."""

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


def command(arguments: list[str]) -> list[str]:
    """Return the command line for `plastic` with these arguments, as a process that ends with this process.

    With -P Python imports nothing from the working folder.
    """
    return [sys.executable, "-P", "-m", "plastic_cli.sweeps.child", str(os.getpid()), MODULE, *arguments]


def kill(process: Process) -> None:
    """Kill a process and, if the system has process groups, the processes that it started."""
    if process.returncode is not None:
        return
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        # Kills it on Windows.
        process.terminate()


def can_fork() -> bool:
    """Return whether this system and this Python have what the fork server needs: Linux 5.3."""
    if sys.platform != "linux":
        return False
    try:
        file = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(file, 0)
        finally:
            os.close(file)
    except (AttributeError, OSError):
        return False
    return hasattr(os, "fork")


class Fork:
    """A process that the fork server started."""

    def __init__(self, pid: int, answers: IO[bytes]) -> None:
        """Watch the process `pid`; answers: the pipe with its exit code, see the fork server."""
        self.pid, self._answers = pid, answers
        self.returncode: int | None = None
        # The system may give the number to another process. This file always means this one.
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            self._wait_for(self._answers.fileno(), timeout)
            answer = self._answers.readline()
            if not answer and self._file is not None:
                # The server was killed, and the process has got a SIGTERM.
                self._wait_for(self._file, timeout)
            self.returncode = int(answer) if answer else INTERRUPTED
            self._answers.close()
            if self._file is not None:
                os.close(self._file)
        return self.returncode

    def terminate(self) -> None:
        """Send a SIGTERM."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                if self._file is None:
                    os.kill(self.pid, signal.SIGTERM)
                else:
                    signal.pidfd_send_signal(self._file, signal.SIGTERM)

    def _wait_for(self, file: int, timeout: float | None) -> None:
        """Wait until a file can be read. Not with select, which takes no file number above 1023."""
        poll = select.poll()
        poll.register(file, select.POLLIN)
        if not poll.poll(None if timeout is None else math.ceil(1000 * timeout)):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)


class Server:
    """The fork server for processes with one environment. It ends with this process, or if nobody uses it."""

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
        """Start `plastic` with these arguments; raises OSError if the server has ended or cannot fork."""
        request = json.dumps({"folder": str(Path.cwd()), "module": MODULE, "arguments": arguments}).encode()
        if len(request) > LARGEST:
            raise OSError(f"the request has {len(request)} bytes")
        mine, theirs = os.pipe()
        answers = os.fdopen(mine, "rb", buffering=0)
        try:
            socket.send_fds(self._channel, [request], [output.fileno(), theirs])
        finally:
            os.close(theirs)
        pid = answers.readline()
        if not pid:
            answers.close()
            raise ConnectionResetError("the fork server has ended or cannot fork")
        return Fork(int(pid), answers)

    def is_alive(self) -> bool:
        """Return whether the server runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Release the socket. The server and its processes then end."""
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


def _release_servers() -> None:
    """Close the sockets in a fork of this process: a server ends if nobody holds its socket any more."""
    global _lock
    _lock = threading.Lock()
    while _servers:
        _servers.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_servers)
