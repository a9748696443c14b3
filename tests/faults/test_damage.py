"""Whatever is in the files of a store, reading returns data and errors: no traceback, no code run, bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import sys
import tarfile
from collections import Counter
from contextlib import contextmanager
from random import Random

import pandas as pd
import pytest
import torch

from faults.mutations import damaged, damaged_json
from plastic_cli.errors import PlasticError
from plastic_cli.plugins.discovery import discover
from plastic_cli.reports.claims import read_claims
from plastic_cli.runs.checkpoint import read_checkpoint
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.archive import pack, unpack
from plastic_cli.sweeps.plan import plan_recipe
from plastic_cli.sweeps.recipe import read_recipe, recipes_folder
from plastic_cli.testing import plastic
from reports.report_frames import CLAIMS

QUICK, MANY = 40, 500
"""Mutations of each kind of file, in every run of the tests and in the slow one."""
ROOM = 300 << 20
"""Bytes by which a process may grow that reads thousands of damaged files one after the other."""

STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn")
watched: list[str] | None = None


def _watch(event, arguments):
    if watched is not None and event in STARTS:
        watched.append(event)


sys.addaudithook(_watch)


@contextmanager
def nothing_started():
    """Let nothing inside the block start a program."""
    global watched
    watched = []
    try:
        yield
        assert watched == []
    finally:
        watched = None


@pytest.fixture
def store(runs_folder):
    """Three runs: one is damaged, two are good, one of them with metrics of every kind."""
    folders = []
    for seed in range(3):
        run = create_run(
            runs_folder,
            rule="backprop",
            config={"seed": seed, "dataset": "digits", "hidden": [8, 4], "learning_rate": 0.1},
            versions={"plastic": "0.1.0", "rule": discover().origins["backprop"]},
        )
        with run.locked():
            run.start()
            layer = torch.nn.Linear(3, 2)
            run.track(layer=layer)
            for step in run.steps(4, "epoch"):
                run.log("test", accuracy=step / 4, loss=1 - step / 10)
            run.finish("completed")
        with open_run(run.folder, stage="eval").locked() as again:
            again.log("test", {"corruption": "noise:0.3"}, accuracy=0.5)
        folders.append(run.folder)
    # What was written in this second may change unseen within the clock's resolution; what is older may not.
    for path in runs_folder.rglob("*.json*"):
        os.utime(path, ns=(10**18, 10**18))
    return folders


def read_everything(folder, runs):
    """Read a store in every way; return how many of its runs can be read."""
    store = RunStore(folder)
    frame = store.runs()
    assert len(frame) + len({error.folder for error in store.errors if "column of" not in error.message}) >= runs
    assert not any("\n" in error.message for error in store.errors)
    store.rows()
    store.names()
    store.metrics()
    metrics = store.metrics(runs=list(frame["run"]), stage="eval")
    assert set(metrics["stage"]) <= {"eval"}
    RunStore(folder).refresh()
    return len(frame)


def show(*arguments):
    """Run a command: it says what it can, in text that a terminal only shows."""
    outcome = plastic(*arguments)
    assert outcome.code in (0, 1, 2), outcome
    (outcome.out + outcome.err).encode()
    assert "Traceback" not in outcome.err
    assert "\x1b" not in outcome.out + outcome.err
    return outcome


@pytest.fixture(
    params=[
        pytest.param(QUICK, id="quick"),
        pytest.param(MANY, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ]
)
def mutations(request, capsys, record_property):
    """Say what to read how often, and report what came of it."""

    def each(kind, content, read, change=damaged, begin=0):
        outcomes: Counter[str] = Counter()
        if change in (damaged, damaged_json):
            # What is whole is read.
            read(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(begin, begin + request.param):
            mutated = change(content, Random(f"{kind} {number}"))
            with nothing_started():
                try:
                    outcomes[str(read(mutated))] += 1
                except PlasticError as error:
                    assert "\n" not in str(error), (kind, number)
                    outcomes["refused"] += 1
                except BaseException as error:
                    error.add_note(f"mutation {number} of {kind}")
                    raise
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown << 10 < ROOM
        record_property(kind, f"{dict(outcomes)}, {grown >> 10} MB")
        if request.param == MANY:
            with capsys.disabled():
                print(f"\n{kind}: {request.param} mutations, {dict(outcomes)}, the process grew by {grown >> 10} MB")

    return each


def test_run_json(store, runs_folder, mutations):
    path = store[1] / "run.json"
    turn = 0

    def read(content):
        nonlocal turn
        turn += 1
        path.write_bytes(content)
        found = read_everything(runs_folder, 3)
        assert found >= 2
        show("runs")
        if turn % 20 == 1:
            show("runs", "show", path.parent.name)
            show("runs", "--json")
            show("runs", "--format", "csv")
            show("report", "--format", "csv", "--status", "all")
        return f"{found - 2} read"

    mutations("run.json", path.read_bytes(), read, damaged_json)


def test_metrics(store, runs_folder, mutations):
    path = store[1] / "metrics.jsonl"
    others = len(RunStore(runs_folder).metrics()) - len(path.read_bytes().splitlines())

    def read(content):
        path.write_bytes(content)
        assert read_everything(runs_folder, 3) == 3
        frame = RunStore(runs_folder).metrics()
        assert len(frame) >= others
        # From the file and from the index the same is read.
        alone = RunStore(runs_folder).metrics(runs=[path.parent.name])
        pd.testing.assert_frame_equal(frame[frame["run"] == path.parent.name].reset_index(drop=True), alone)
        return "some read" if len(alone) else "none read"

    mutations("metrics.jsonl", path.read_bytes(), read, damaged_json)


@pytest.mark.parametrize("name", ["records.json", "metrics.json", "metrics.parquet"])
def test_the_index(store, runs_folder, mutations, name):
    fresh = RunStore(runs_folder)
    runs, metrics = fresh.runs(), fresh.metrics()
    path = runs_folder / ".index" / name
    content = path.read_bytes()

    def read(changed):
        path.write_bytes(changed)
        again = RunStore(runs_folder)
        pd.testing.assert_frame_equal(again.runs(), runs)
        pd.testing.assert_frame_equal(again.metrics(), metrics)
        assert again.errors == []
        RunStore(runs_folder).refresh()
        return "the same read"

    mutations(name, content, read, damaged_json if name.endswith("json") else damaged)


def test_checkpoints(store, mutations):
    path = store[1] / "checkpoint.pt"
    content = path.read_bytes()
    torch.manual_seed(5)
    whole = read_checkpoint(path.parent).tracked["layer"]["weight"]
    metrics = (store[1] / "metrics.jsonl").read_bytes()

    def read(changed):
        path.write_bytes(changed)
        run = open_run(path.parent)
        assert torch.equal(read_checkpoint(run.folder).tracked["layer"]["weight"], whole), (
            "a bit that turned is not a weight"
        )
        with run.locked():
            run.resume()
            run.track(layer=torch.nn.Linear(3, 2))
            list(run.steps(4, "epoch"))
        assert (store[1] / "metrics.jsonl").read_bytes() == metrics
        return "whole"

    mutations("checkpoint.pt", content, read)


def test_checkpoints_whose_checksums_are_right(store, mutations):
    """Damage from before the file was written, or by hand: any value anywhere."""
    path = store[1] / "checkpoint.pt"
    content = vars(read_checkpoint(path.parent))

    def change(_, random):
        return random

    def read(random):
        changed = _changed_anywhere(content, random)
        torch.save(changed, path)
        run = open_run(path.parent)
        read_checkpoint(run.folder)
        with run.locked():
            run.resume()
            run.track(layer=torch.nn.Linear(3, 2))
            list(run.steps(4, "epoch"))
        return "resumed"

    mutations("values of checkpoint.pt", b"", read, change)


def _changed_anywhere(value, random):
    from faults.mutations import VALUES

    if isinstance(value, dict) and value and random.random() < 0.95:
        key = random.choice(list(value))
        return {**value, key: _changed_anywhere(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        changed = list(value)
        number = random.randrange(len(value))
        changed[number] = _changed_anywhere(value[number], random)
        return changed
    values = [*VALUES, torch.zeros(0), torch.zeros(3, 2, dtype=torch.uint8), torch.tensor(float("nan"))]
    return random.choice([entry for entry in values if not isinstance(entry, str) or "\ud800" not in entry])


def test_no_code_in_a_checkpoint_runs(store, tmp_path):
    proof = tmp_path / "ran"

    class Trap:
        def __init__(self, call, *arguments):
            self._call = (call, arguments)

        def __reduce__(self):
            return self._call

    path = store[1] / "checkpoint.pt"
    content = vars(read_checkpoint(path.parent))
    traps = [
        Trap(os.mkdir, str(proof)),
        Trap(os.system, f"mkdir {proof}"),
        Trap(exec, f"import os; os.mkdir({str(proof)!r})"),
        Trap(eval, f"__import__('os').mkdir({str(proof)!r})"),
        Trap(torch.load, str(proof)),
    ]
    for trap in traps:
        for part in (None, "tracked", "random", "speed"):
            torch.save(trap if part is None else {**content, part: {"layer": trap}}, path)
            with nothing_started(), pytest.raises(PlasticError, match="is damaged"):
                read_checkpoint(path.parent)
        path.write_bytes(pickle.dumps(trap))
        with nothing_started(), pytest.raises(PlasticError, match="is damaged"):
            read_checkpoint(path.parent)
    assert not proof.exists()


def test_theta_files(tmp_path, mutations):
    from plastic_metafa.theta_file import read_theta, theta_toml

    path = tmp_path / "theta.toml"

    def read(content):
        path.write_bytes(content)
        return f"{len(read_theta(path).theta) > 0} read"

    mutations("theta.toml", theta_toml({0: 0.5, 2: -0.25, 9: 1e-3}, "fixed", "learned").encode(), read)


def test_claims(mutations):
    # Few entries: a whole file of a rule would take a minute to read this often.
    settings = '[settings.mnist]\ndataset = "mnist"\n'
    text = settings + CLAIMS.replace('conditions = { dataset = "mnist" }', 'settings = "mnist"')

    def read(content):
        figures = read_claims("grlu", content.decode(errors="surrogateescape"))
        return "read" if figures.claims else "nothing read"

    mutations("claims.toml", text.encode(), read)


def test_recipes(tmp_path, mutations):
    path = tmp_path / "mine.toml"

    def read(content):
        path.write_bytes(content)
        return f"{len(plan_recipe(read_recipe(str(path)))) > 0} planned"

    mutations("a recipe", (recipes_folder() / "backprop-quick.toml").read_bytes(), read)


def test_journals(tmp_path, mutations):
    pytest.importorskip("optuna")
    from plastic_cli.sweeps.search import Choice, Range, open_study

    space = {"rate": Range(1e-3, 1.0, "log", whole=False), "kind": Choice(("a", "b"))}

    def go_on(trials):
        with open_study(tmp_path, "s", space, maximize=True, seed=0) as study:
            for _ in range(trials):
                number, values = study.ask()
                study.tell(number, values["rate"])
            return len(study.finished())

    go_on(4)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    content = journal.read_bytes()

    def read(changed):
        for left in journal.parent.glob("*.cut-*"):
            left.unlink()
        journal.write_bytes(changed)
        found = go_on(1)
        assert go_on(1) == found + 1, "what went on goes on"
        return "gone on with" if found > 1 else "begun again"

    mutations("Optuna's journal", content, read, damaged_json)


def test_worker_archives(store, tmp_path, mutations):
    content = pack(store[1])
    target = tmp_path / "target"

    def read(changed):
        folder = unpack(changed, target, store[1].name)
        assert folder.parent == target
        for path in folder.rglob("*"):
            assert not path.is_symlink()
            assert path.resolve().is_relative_to(target)
        same = (folder / "metrics.jsonl").read_bytes() == (store[1] / "metrics.jsonl").read_bytes()
        shutil.rmtree(folder)
        assert same, "an archive with a wrong checksum is not unpacked"
        return "whole"

    mutations("worker archives", content, read)
    assert list(target.iterdir()) == [], "nothing is left of what was refused"


def test_tables_inside_worker_archives(store, tmp_path, mutations):
    """The archive is whole, what is in it is not: headers of any kind."""
    import gzip

    content = gzip.decompress(pack(store[1]))
    target = tmp_path / "target"

    def change(tar, random):
        header = 512 * random.randrange(8)
        return gzip.compress(tar[:header] + damaged(tar[header : header + 512], random) + tar[header + 512 :], 1)

    def read(changed):
        folder = unpack(changed, target, store[1].name)
        for path in folder.rglob("*"):
            assert not path.is_symlink()
            assert path.resolve().is_relative_to(target)
        shutil.rmtree(folder)
        return "unpacked"

    mutations("headers of worker archives", content, read, change)
    assert list(target.iterdir()) == []


def archive_of(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind, size, link in [("run.json", tarfile.REGTYPE, 2, ""), *members]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, size, link
            archive.addfile(info, io.BytesIO(b"{}" if name == "run.json" else b"x" * size) if size else None)
    return stream.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", tarfile.REGTYPE, 1, ""),
        ("/tmp/outside-of-plastic", tarfile.REGTYPE, 1, ""),
        ("a/../../outside", tarfile.REGTYPE, 1, ""),
        (".hidden", tarfile.REGTYPE, 1, ""),
        ("run.json", tarfile.REGTYPE, 1, ""),
        ("link", tarfile.SYMTYPE, 0, "/etc/passwd"),
        ("link", tarfile.LNKTYPE, 0, "run.json"),
        ("device", tarfile.CHRTYPE, 0, ""),
        ("pipe", tarfile.FIFOTYPE, 0, ""),
    ],
    ids=lambda member: f"{member[0]} {member[1].decode()}",
)
def test_an_archive_holds_plain_files_of_one_run_and_nothing_else(tmp_path, member):
    with pytest.raises(PlasticError):
        unpack(archive_of(member), tmp_path / "store", "20260101-000000-abcd")
    assert list((tmp_path / "store").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", ".x", "x\0y", "x\ny", "x" * 300, "-x", "\u202ex"])
def test_only_a_name_of_a_run_is_unpacked(tmp_path, name):
    with pytest.raises(PlasticError, match="is not the name of a run"):
        unpack(archive_of(), tmp_path / "store", name)
    assert not (tmp_path / "store").exists()


def test_an_archive_that_unpacks_to_more_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr("plastic_cli.sweeps.archive.LARGEST_RUN", 10_000_000)
    bomb = archive_of(*((f"zeros-{number}", tarfile.REGTYPE, 4_000_000, "") for number in range(4)))
    assert len(bomb) < 100_000
    with pytest.raises(PlasticError, match="the disk has no space"):
        unpack(bomb, tmp_path / "store", "20260101-000000-abcd")
    assert list((tmp_path / "store").iterdir()) == []
