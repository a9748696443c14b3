"""`plastic tune`: on validation images, resumable, every trial a run like any other."""

from __future__ import annotations

import json
import shlex
import signal
from typing import Literal

import pytest

from plastic_cli.config.model import TrainConfig, field
from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.resolve import resolve
from plastic_cli.runs.store import RunStore
from plastic_cli.sweeps.search import Choice, Range, open_study, search_space
from plastic_cli.testing import plastic
from plastic_cli.verbs import tune
from sweeps.watching import PLASTIC, statuses, until

pytest.importorskip("optuna")


class Example(TrainConfig):
    rate: float = field(0.1, "a rate", search=(1e-3, 1.0, "log"))
    units: int = field(8, "units", ge=1)
    joint: bool = field(False, "a switch")
    kind: str = field("a", "a word")


class Bounded(TrainConfig):
    kind: Literal["small", "large"] = field("small", "a kind")
    units: int = field(8, "units", ge=1, le=64, search=(1, 64, "log"))
    decay: float = field(0.0, "a decay", ge=0, search=(1e-4, 0.1, "log"))
    size: float | None = field(None, "a size", search=(0.1, 1.0, "log"))

    @classmethod
    def implied(cls, typed):
        return {"units": 32, "decay": 0.01, "size": 0.5} if typed.get("kind") == "large" else {}


def space_of(model, texts, values):
    return search_space(resolve(model, values), texts, values)


def test_a_search_is_what_the_rule_declares_or_what_is_typed():
    assert space_of(Example, [], {}) == {"rate": Range(1e-3, 1.0, "log", whole=False)}
    typed = space_of(Example, ["units=1:64:log", "kind=a,b", "joint", "rate=0:1"], {})
    assert typed == {
        "units": Range(1, 64, "log", whole=True),
        "kind": Choice(("a", "b")),
        "joint": Choice(("true", "false")),
        "rate": Range(0, 1, "linear", whole=False),
    }
    with pytest.raises(UserError, match="nothing to search"):
        space_of(Example, [], {"rate": "0.5"})


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "units",
        "kind=a:b",
        "kind=a",
        "rate=1:0",
        "rate=0:1:log",
        "rate=1:2:3",
        "seed=1,2",
        "rate=a:b",
        "rate=",
    ],
)
def test_a_wrong_search_is_reported_in_one_line(text):
    with pytest.raises(UserError) as caught:
        space_of(Example, [text], {})
    assert str(caught.value).startswith(f"--search {text}: ")


def test_every_rule_declares_what_to_search():
    for name in ("backprop", "eglp", "grlu", "mpn", "selective"):
        model = train_model(find_rule(name))
        for option, searched in space_of(model, [], {}).items():
            assert isinstance(searched, Range)
            default = model.model_fields[option].default
            assert searched.low <= default <= searched.high, (name, option)
            for end in (searched.low, searched.high):
                model.from_values({option: end})
    assert set(discover().rules) >= {"backprop", "eglp"}


@pytest.mark.parametrize("rule", ["backprop", "eglp", "feedback", "grlu", "mpn", "selective"])
@pytest.mark.parametrize("update", [None, "backprop"])
@pytest.mark.parametrize("more", [{}, {"model": "lenet"}, {"optimizer": "adam"}, {"optimizer": "momentum"}], ids=str)
def test_a_search_without_named_options_is_valid_and_contains_the_defaults(rule, more, update):
    model = train_model(find_rule(rule))
    more = more if update is None else {**more, "update": update}
    if more.keys() - model.model_fields.keys():
        pytest.skip("the rule has no such option")
    if update and rule == "eglp":
        with pytest.raises(UserError, match=r"nothing to search|does nothing"):
            space_of(model, [], more)
        return
    defaults = resolve(model, more)
    space = space_of(model, [], more)
    assert space
    for option, searched in space.items():
        assert searched.low <= getattr(defaults, option) <= searched.high, option
        for end in (searched.low, searched.high):
            resolve(model, {**more, option: end})


def test_a_moved_range_ends_at_the_bounds_of_its_option():
    plain, large = (space_of(Bounded, [], values) for values in ({}, {"kind": "large"}))
    assert plain == {
        "units": Range(1, 64, "log", whole=True),
        "decay": Range(1e-4, 0.1, "log", whole=False),
        "size": Range(0.1, 1.0, "log", whole=False),
    }
    assert large == {**plain, "units": Range(4, 64, "log", whole=True)}


def test_a_range_belongs_to_the_options_that_are_trained(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('optimizer = "sgd"\n')
    for options in (["--model", "lenet"], ["--model", "lenet", "--config", str(file)]):
        outcome = plastic("tune", "grlu", *options, "--dry-run")
        assert outcome.code == 0, outcome.err
        # In both cases the model implies Adam and its rate.
        row = next(line for line in outcome.out.splitlines() if "learning_rate" in line)
        assert [float(number) for number in row.split()[1:3]] == [1e-5, 0.01]


def test_a_range_moves_with_a_default_that_other_options_imply():
    model = train_model(find_rule("grlu"))
    plain, other = (space_of(model, ["learning_rate"], fixed)["learning_rate"] for fixed in ({}, {"model": "cnn"}))
    assert (plain.low, plain.high) == (0.001, 1.0)
    assert (other.low, other.high) == pytest.approx((1e-5, 0.01))
    published = space_of(train_model(find_rule("eglp")), [], {"model": "softhebb"})
    assert "initial_radius" in published
    assert "initial_radius" not in space_of(train_model(find_rule("eglp")), [], {"model": "mlp"})


def test_a_search_finds_what_is_best_and_says_how_to_train_it(instant_runs, runs_folder, starts):
    outcome = plastic("tune", "backprop", "--epochs", 1, "--trials", 12, "--workers", 2, "--seed", 4)
    assert outcome.code == 0, outcome.err
    rows = RunStore(runs_folder).rows()
    assert len(rows) == 12
    assert {row["config"]["validation"] for row in rows} == {287}, "a fifth of the training images of the digits"
    best = max(rows, key=lambda row: row["summary"]["validation/accuracy"])
    line = outcome.out.splitlines()[-1]
    words = shlex.split(line.removeprefix("best: "))
    assert words[:5] == ["plastic", "train", "backprop", "--epochs", "1"]
    assert float(words[words.index("--learning-rate") + 1]) == best["config"]["learning_rate"]
    assert "--validation" not in words
    assert plastic(*words[1:], "--dry-run").code == 0
    # The best of the stand-in is at a learning rate of 0.01.
    assert 0.002 < best["config"]["learning_rate"] < 0.05


def test_a_search_continues_where_it_stopped(instant_runs, runs_folder, starts):
    def trials(number):
        outcome = plastic("tune", "backprop", "--epochs", 1, "--trials", number, "--json", "--workers", 1)
        assert outcome.code == 0, outcome.err
        return {result["trial"]: result["settings"]["learning_rate"] for result in outcome.results}

    first = trials(3)
    more = trials(6)
    assert first.items() <= more.items()
    assert len(set(more.values())) == 6, "the same draws do not come again"
    assert trials(6) == more
    assert len(starts()) == 6
    table = plastic("tune", "backprop", "--epochs", 1, "--trials", 6, "--workers", 1).out
    assert "validation accuracy" in table, "also where no trial was left to be made"
    # Another question is another search.
    other = plastic("tune", "backprop", "--epochs", 2, "--trials", 1, "--workers", 1, "--json")
    assert len(other.results) == 1


def test_a_killed_search_continues_with_its_trials(processes, runs_folder, starts):
    options = ["tune", "backprop", "--epochs", 3, "--trials", 4, "--workers", 2, "--json"]
    killed = processes(PLASTIC, *options, INSTANT_SECONDS="0.5")
    until(lambda: len(starts()) >= 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = processes(PLASTIC, *options)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0, out
    assert statuses(runs_folder) == ["completed"] * 4, "what ran was finished, and no trial was made twice"
    stopped = processes(PLASTIC, "tune", "backprop", "--epochs", 4, "--trials", 4, INSTANT_SECONDS="0.5")
    until(lambda: "running" in statuses(runs_folder))
    stopped.send_signal(signal.SIGINT)
    out, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, out
    assert "Traceback" not in out


def test_failed_trials_are_worse_than_all_others(instant_runs, runs_folder):
    outcome = plastic(
        *("tune", "backprop", "--search", "batch_size=1,13", "--trials", 6, "--epochs", 1, "--json", "--workers", 1),
        *("--seed", 1),
    )
    assert outcome.code == 0, outcome.err
    values = [(result["settings"]["batch_size"], result["value"]) for result in outcome.results]
    assert {size for size, value in values if value is None} == {"13"}
    assert values[0][0] == "1"
    none = plastic("tune", "backprop", "--search", "batch_size=13,16", "--trials", 2, "--workers", 1)
    assert none.code in (1, 2)
    assert none.err.count("error: ") == 1


def test_seeds_are_averaged(instant_runs, runs_folder, starts):
    outcome = plastic("tune", "backprop", "--epochs", 1, "--trials", 2, "--seeds", 3, "--json", "--workers", 2)
    assert outcome.code == 0, outcome.err
    assert len(starts()) == 6
    assert {start["seed"] for start in starts()} == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "test/accuracy"], "it is measured on test data"),
        (["--metric", "control/accuracy"], "it is measured on test data"),
        (["--metric", "train/peeked", "--trials", "1"], "it is measured on test data"),
        (["--metric", "train/peeked", "--trials", "1"], "Name validation/accuracy, validation/loss."),
        (
            ["--metric", "validation/nothing", "--trials", "1"],
            "Choose one with --metric: validation/accuracy, validation/loss.",
        ),
        (["--metric", "validation/nothing", "--trials", "1"], "have no validation/nothing"),
        (["--validation", "0"], "needs validation images"),
        (["--learning-rate", "0.1"], "nothing to search"),
        (["--search", "learning_rate=0.1:1", "--learning-rate", "0.1"], "has a value already"),
        (["--search", "batch_size=0:0.5"], "--batch-size"),
        (["--trials", "0"], "--trials 0"),
        (["--search", "batch_size=16,17", "--trials", "8", "--seed", "2"], "that does nothing. Leave it out."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_searched_are_reported(options, said, instant_runs):
    outcome = plastic("tune", "backprop", "--epochs", 1, "--quiet", *options)
    assert outcome.code == 2, outcome
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_loss_is_minimized(instant_runs, runs_folder):
    options = ["--epochs", 1, "--trials", 6, "--workers", 2, "--json"]
    outcome = plastic("tune", "backprop", "--metric", "validation/loss", *options)
    assert outcome.code == 0, outcome.err
    losses = [result["value"] for result in outcome.results]
    assert losses == sorted(losses), "the best comes first"
    assert losses[0] == min(row["summary"]["validation/loss"] for row in RunStore(runs_folder).rows())
    assert losses[0] < losses[-1]


def test_a_metric_with_a_name_of_test_data_is_refused_before_the_first_run(instant_runs, starts):
    for metric in ("test/accuracy", "control/accuracy"):
        assert plastic("tune", "backprop", "--epochs", 1, "--trials", 1, "--metric", metric).code == 2
    assert starts() == []


def test_a_search_does_not_fall_back_on_a_number_that_was_measured_on_test_data(runs_folder, monkeypatch, instant_runs):
    read = tune.read_record

    def peeked(folder):
        record = read(folder)
        record.measured_on["validation/accuracy"] = "test"
        return record

    monkeypatch.setattr(tune, "read_record", peeked)
    outcome = plastic("tune", "backprop", "--epochs", 1, "--trials", 1, "--quiet")
    assert outcome.code == 2
    assert "no metric of validation data. Choose one with --metric: validation/loss." in outcome.err


def test_the_number_of_validation_images_is_shown_first(starts):
    shown = plastic("tune", "grlu", "--dry-run", "--format", "csv", "--dataset", "digits")
    assert shown.code == 0
    assert shown.out.splitlines()[0] == "option,low,high,scale,values"
    assert "287 training images set aside" in shown.err
    listed = plastic("tune", "--help").out
    assert "grlu" in listed
    assert plastic("tune", "grul").code == 2


def test_one_process_at_a_time_adds_to_a_search(runs_folder, tmp_path):
    space = {"rate": Range(0.0, 1.0, "linear", whole=False)}
    with (
        open_study(tmp_path, "one", space, maximize=True, seed=0),
        pytest.raises(UserError, match="another process"),
        open_study(tmp_path, "one", space, maximize=True, seed=0),
    ):
        pass
    with open_study(tmp_path, "one", space, maximize=True, seed=0) as study:
        _, values = study.ask()
    with open_study(tmp_path, "one", space, maximize=True, seed=0) as study:
        assert study.ask()[1] == values, "an unfinished trial comes first again"
    with (
        pytest.raises(UserError, match="searched something else"),
        open_study(tmp_path, "one", {"rate": Range(0.0, 2.0, "linear", whole=False)}, maximize=True, seed=0),
    ):
        pass


def test_a_real_search_never_looks_at_the_test_split(tiny_data, runs_folder, starts):
    outcome = plastic(
        *("tune", "backprop", "--dataset", tiny_data, "--hidden", 4, "--epochs", 1, "--trials", 2, "--json"),
        *("--workers", 2),
    )
    assert outcome.code == 0, outcome.err
    assert [result["metric"] for result in outcome.results] == ["validation/accuracy"] * 2
    rows = RunStore(runs_folder).rows()
    assert {row["config"]["validation"] for row in rows} == {12}
    assert sorted(result["value"] for result in outcome.results) == sorted(
        row["summary"]["validation/accuracy"] for row in rows
    )
    assert json.loads(json.dumps(outcome.results))


RATE = {"rate": Range(1e-3, 1.0, "log", whole=False), "kind": Choice(("a", "b"))}


def searched(store, trials, name="s"):
    """Make trials of a search and return the numbers of all that are over."""
    with open_study(store, name, RATE, maximize=True, seed=0) as study:
        for _ in range(trials):
            number, values = study.ask()
            study.tell(number, values["rate"])
        return sorted(number for number, _, _ in study.finished())


@pytest.mark.parametrize("torn", [1, 2, 7, 40, 200, 700])
def test_a_damaged_journal_is_cut_and_the_search_continues(tmp_path, torn):
    searched(tmp_path, 6)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:-torn])
    there = searched(tmp_path, 0)
    assert len(there) >= 4
    for sitting in range(1, 4):
        assert len(searched(tmp_path, 2)) == len(there) + 2 * sitting
    assert list(journal.parent.glob("*.cut-*")) == []


@pytest.mark.parametrize(
    "noise", [b"\0" * 4096, b"\xff{", b'{"op_code": 4, "worker_id": "x", ', b"[]", b"{}\n", b"null\n"]
)
def test_noise_at_the_end_of_a_journal_is_cut(tmp_path, noise):
    before = searched(tmp_path, 3)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    with journal.open("ab") as stream:
        stream.write(noise)
    assert searched(tmp_path, 0) == before
    assert len(searched(tmp_path, 1)) == 4


def test_lines_cut_from_the_middle_of_a_journal_are_kept_next_to_it(tmp_path):
    searched(tmp_path, 4)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:8], b"\0\0\0\n", *lines[9:]]))
    searched(tmp_path, 1)
    (kept,) = journal.parent.glob("*.cut-*")
    assert kept.read_bytes() == b"".join([b"\0\0\0\n", *lines[9:]])


def test_an_unreadable_journal_is_reported_in_one_line_and_kept(tmp_path):
    searched(tmp_path, 2)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    with journal.open("ab") as stream:
        stream.write(b'{"op_code": 99, "worker_id": "from the future"}\n')
    before = journal.read_bytes()
    with pytest.raises(UserError, match="is damaged") as caught:
        searched(tmp_path, 1)
    assert "--study" in str(caught.value)
    assert journal.read_bytes() == before


def test_a_search_does_not_wait_for_the_lock_of_a_killed_process(tmp_path, monkeypatch):
    searched(tmp_path, 1)
    (journal,) = (tmp_path / ".sweeps/tune").glob("*.journal")
    journal.with_name(f"{journal.name}.lock").symlink_to(journal)

    def no_sleep(_seconds):
        raise AssertionError("it waits")

    monkeypatch.setattr("time.sleep", no_sleep)
    assert len(searched(tmp_path, 1)) == 2


def test_a_search_in_the_other_direction_is_another_search(runs_folder):
    def plan(*options):
        return tune.planned_search(find_rule("backprop"), {}, tune.TuningOptions.from_values(dict(options)))

    loss = ("metric", "validation/loss")
    down, up, same = plan(loss), plan(loss, ("direction", "maximize")), plan(loss, ("direction", "minimize"))
    assert down.name == same.name != up.name
    runs_folder.mkdir(exist_ok=True)
    with open_study(runs_folder, "mine", down.space, maximize=False, seed=0):
        pass
    with (
        pytest.raises(UserError, match="the study mine minimizes its metric"),
        open_study(runs_folder, "mine", down.space, maximize=True, seed=0),
    ):
        pass
