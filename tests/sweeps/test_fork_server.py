"""The fork server: its processes are like new ones, and end with their sweep."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plastic_cli.sweeps import fork_server, process
from plastic_cli.sweeps.engine import Sweep
from plastic_cli.sweeps.options import SweepOptions
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.pools import open_pool
from plastic_cli.sweeps.recipe import read_recipe
from processes import environment

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not process.can_fork(), reason="the fork server needs Linux 5.3")


@pytest.fixture
def server(monkeypatch):
    """Start servers of the program of these tests, with variables of the environment; end them."""
    monkeypatch.setattr(process, "MODULE", "forked_program")
    started = []

    def start(**variables):
        started.append(process.Server({**environment(HERE), "OPENBLAS_NUM_THREADS": "1", **variables}))
        return started[-1]

    yield start
    for each in started:
        each.close()
        each._process.wait(30)


@pytest.fixture
def begun(tmp_path):
    """Start a process of a server; return it and a function that returns what it found."""

    def begin(server, *arguments):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        with file.open("wb") as output:
            child = server.start([str(argument) for argument in arguments], output)

        def about():
            for _ in range(600):
                if file.read_text().endswith("\n"):
                    return json.loads(file.read_text())
                time.sleep(0.1)
            raise AssertionError(file.read_text())

        return child, about

    return begin


def is_over(pid):
    """Return whether a process has ended; its new parent may not have asked for its exit code."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_fork_is_like_a_new_process(server, begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = server(VARIABLE="set")
    found = []
    for code in (0, 3):
        child, about = begun(ours, "exit", code, "a b", "--c=é")
        assert child.wait(60) == child.returncode == code
        found.append(about())
        assert found[-1]["arguments"] == ["exit", str(code), "a b", "--c=é"]
        assert found[-1]["pid"] == found[-1]["session"] == child.pid
    first, second = found
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"] == ours._process.pid
    assert first["folder"] == str(tmp_path)
    assert (first["input"], first["variable"], first["has torch"]) == ("", "set", True)
    assert first["random"] != second["random"]


def test_what_one_process_imports_the_next_one_has(server, begun):
    ours = server()
    numbers = []
    for has_it in (False, True, True):
        child, about = begun(ours, "import", "pandas")
        assert child.wait(60) == 0
        assert about()["has pandas"] is has_it
        assert about()["has torch"]
        numbers.append(about()["numpy"])
    # With pandas comes NumPy's generator, and each process has a state of its own.
    assert None is not numbers[1] != numbers[2] is not None


def test_processes_run_at_once_and_signals_end_them(server, begun):
    ours = server()
    first, about_first = begun(ours, "wait")
    second, about_second = begun(ours, "wait")
    assert about_first()["pid"] != about_second()["pid"]
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.01)
    assert first.returncode is None
    first.terminate()
    assert first.wait(30) == -signal.SIGTERM
    # Its number may belong to another process by now.
    first.terminate()
    process.kill(first)
    process.kill(second)
    assert second.wait(30) == -signal.SIGKILL
    third, _ = begun(ours, "kill")
    assert third.wait(30) == -signal.SIGKILL


def test_processes_end_with_their_server_and_it_with_its_sweep(server, begun):
    killed, closed = server(), server()
    child, about = begun(killed, "wait")
    other, about_other = begun(closed, "wait")
    about(), about_other()
    killed._process.kill()
    assert child.wait(30) == 130
    # A sweep that ends closes the socket.
    closed.close()
    assert closed._process.wait(30) == 0
    assert other.wait(30) == 130
    assert is_over(child.pid)
    assert is_over(other.pid)


def test_a_process_that_outlives_its_server_can_be_waited_for_and_killed(server, begun):
    ours = server()
    child, about = begun(ours, "ignore")
    about()
    ours._process.kill()
    ours._process.wait()
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.2)
    assert time.monotonic() - began < 10
    process.kill(child)
    assert child.wait(30) == 130
    assert is_over(child.pid)


def test_a_request_that_fails_leaves_the_other_processes_alone(server, begun, tmp_path):
    ours = server()
    child, about = begun(ours, "wait")
    about()
    with (tmp_path / "log").open("wb") as output:
        with pytest.raises(OSError, match="bytes"):
            ours.start(["x" * fork_server.LARGEST], output)
        # The message lacks a file, and is no request.
        socket.send_fds(ours._channel, [b"{}"], [output.fileno()])
        socket.send_fds(ours._channel, [b"nothing"], [output.fileno(), output.fileno()])
        second = ours.start(["exit", "4"], output)
    assert second.wait(60) == 4
    assert child.returncode is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    child.terminate()
    child.wait(30)


def test_a_server_that_nobody_uses_ends(monkeypatch):
    monkeypatch.setattr(fork_server, "IDLE_SECONDS", 0.01)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs:
        assert fork_server.serve(theirs, theirs) is None


def test_a_python_without_files_of_processes_starts_new_ones(monkeypatch):
    assert process.can_fork()
    with monkeypatch.context() as without:
        without.delattr(os, "pidfd_open")
        assert not process.can_fork()
    with monkeypatch.context() as without:
        without.delattr(signal, "pidfd_send_signal")
        assert not process.can_fork()


def test_a_new_server_follows_one_that_has_ended(server, begun, monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_servers", [])
    settings = environment(HERE)
    with (tmp_path / "log").open("wb") as output:
        first = process.start(["exit", "0"], settings, output)
        assert (type(first), first.wait(60)) == (process.Fork, 0)
        (ended,) = process._servers
        ended._process.kill()
        ended._process.wait()
        second = process.start(["exit", "0"], settings, output)
        assert (type(second), second.wait(60)) == (process.Fork, 0)
        (running,) = process._servers
        assert running is not ended
        # The next one meets a server that ends just now.
        monkeypatch.setattr(process.Server, "start", lambda *_: (_ for _ in ()).throw(ConnectionResetError))
        third = process.start(["exit", "0"], settings, output)
        assert (type(third), third.wait(60)) == (subprocess.Popen, 0)
        running.close()
        running._process.wait(30)


def test_a_server_with_threads_forks_no_process(server, begun, tmp_path):
    # A fork has one of the threads; the locks of the others stay locked.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "if 'plastic_cli.sweeps.fork_server' in sys.orig_argv:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    folders = os.pathsep.join([str(tmp_path), environment(HERE)["PYTHONPATH"]])
    with pytest.raises(ConnectionResetError):
        begun(server(PYTHONPATH=folders), "exit", 3)


def test_a_fork_of_the_sweep_keeps_no_server(server, begun):
    """A worker of a data loader, say: the runs end with the sweep, and not with it."""
    ours = server()
    process._servers.append(ours)
    try:
        child, about = begun(ours, "wait")
        about()
        if (helper := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        process._servers.remove(ours)
        ours.close()
        assert child.wait(30) == 130
    finally:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)


def test_forks_and_new_processes_have_the_same_results(recipe, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_servers", [])
    plain, kinds = process.start, []

    def start(*arguments):
        child = plain(*arguments)
        kinds.append(type(child))
        return child

    monkeypatch.setattr(process, "start", start)
    metrics = []
    for can_fork in (True, False):
        monkeypatch.setattr(process, "can_fork", lambda can_fork=can_fork: can_fork)
        store = tmp_path / str(can_fork)
        with open_pool(None, 1) as pool:
            plan = plan_recipe(read_recipe(str(recipe(options=f'dataset = "{tiny_data}"', seeds="2"))))
            results = Sweep(plan, pool, store, SweepOptions()).run(lambda progress: None)
        assert [result.word for result in results] == ["done", "done"]
        for result in results:
            lines = (store / str(result.outcome.run) / "metrics.jsonl").read_text().splitlines()
            metrics.append([{**json.loads(line), "time": None} for line in lines])
    assert kinds == [process.Fork, process.Fork, subprocess.Popen, subprocess.Popen]
    assert metrics[:2] == metrics[2:]
    assert metrics[0] != metrics[1]


def test_the_command_line_of_a_new_process_names_its_parent():
    line = process.command(["train", "--json"])
    assert line == [
        sys.executable,
        *("-P", "-m", "plastic_cli.sweeps.child", str(os.getpid()), "plastic_cli", "train", "--json"),
    ]
