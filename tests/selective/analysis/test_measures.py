"""`plastic analyze selective` and `plastic render selective`: measures, figures, films and errors."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot

from plastic_cli.analysis import continual
from plastic_cli.figures.theme import discrete_colors
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import interrupted_after, plastic, write_tiny_dataset
from plastic_selective.analysis import figures
from plastic_selective.analysis.film import Panel, draw_frames, evenly_spaced
from plastic_selective.analysis.measures import (
    distribution_tables,
    forgetting_table,
    overlap_table,
    sweep_k,
)
from plastic_selective.analysis.overlap import (
    busiest,
    carried_over,
    chance_among_active,
    shared_share,
)
from plastic_selective.continual.history import History, every, read_history

TASKS, EPOCHS = 3, 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tiny data set, and the runs that the tests look at."""
    folder = tmp_path_factory.mktemp("analysed")
    write_tiny_dataset(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """Train once with these options and return the folder of the run."""
    known = {}

    def run(*options):
        if options not in known:
            small = ["--dataset", base / "tiny", "--tasks", TASKS, "--hidden", "8,6"]
            small += [] if "--iterations" in options else ["--epochs", EPOCHS]
            small += ["--batch-size", 8]
            small += [] if "--replay" in options or "--joint" in options else ["--buffer-size", 12]
            small += [] if "--optimizer" in options else ["--warmup-steps", 2]
            outcome = plastic("train", "selective", "--quiet", "--runs", base / "runs", *small, *options)
            assert outcome.code == 0, outcome.err
            known[options] = Path(outcome.out.strip())
        return known[options]

    return run


def look(verb, folder, *options):
    return plastic(verb, "selective", "--json", "--runs", folder.parent, "--run", folder.name, *options)


def history_of(folder):
    return read_history(open_run(folder, stage="analyze"))


def stored_matrix(folder):
    return continual.accuracy_matrix(pd.read_csv(folder / "tables" / "accuracy_matrix.csv"))


def assert_refused(outcome, *parts):
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    for part in parts:
        assert part in lines[0]


# ---------------------------------------------------------------------------------------------- shared synapses

eligibilities = st.lists(st.integers(0, 4), min_size=4, max_size=6).map(lambda v: torch.tensor(v, dtype=torch.float16))


@given(eligibilities)
def test_the_busiest_quarter_is_the_mean_over_all_ways_to_break_ties(values):
    wanted = len(values) / 4
    whole = int(wanted)
    expected = np.zeros(len(values))
    orders = [
        order
        for order in itertools.permutations(range(len(values)))
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
    ]
    for order in orders:
        expected[list(order[:whole])] += 1
        expected[order[whole]] += wanted - whole
    np.testing.assert_allclose(busiest(values), expected / len(orders), atol=1e-12)


def test_without_ties_the_busiest_quarter_is_that_of_a_sort():
    values = torch.from_numpy(np.random.default_rng(0).permutation(240).reshape(12, 20).astype(np.float32))
    marks = busiest(values).numpy()
    assert set(np.unique(marks)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.flatnonzero(marks), np.sort(np.argsort(-values.numpy().ravel())[:60]))


def test_shared_share_of_the_same_of_others_and_of_chance():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(200, 300, generator=generator), torch.rand(200, 300, generator=generator)
    assert shared_share(first, first) == pytest.approx(1)
    assert shared_share(first, -first) == 0
    assert shared_share(first, second) == pytest.approx(0.25, abs=4 * np.sqrt(0.75 / 60000))
    assert shared_share(first, second) == shared_share(second, first)
    assert shared_share(first**3, second) == shared_share(first, second), "only the order counts"
    # Nothing but ties tells nothing apart.
    assert shared_share(torch.zeros(8), torch.zeros(8)) == pytest.approx(0.25)


def test_chance_among_active_synapses():
    active = torch.ones(100)
    half, other_half, few = active.clone(), active.clone(), torch.zeros(100)
    half[50:], other_half[:50], few[:10] = 0, 0, 1
    assert chance_among_active(active, active) == pytest.approx(0.25)
    assert chance_among_active(half, half) == pytest.approx(0.5)
    assert chance_among_active(half, active) == pytest.approx(0.25)
    assert chance_among_active(half, other_half) == 0
    # 10 are certain, 15 are drawn from the 90 that are silent: (10 + 90 (15 / 90)^2) / 25.
    assert chance_among_active(few, few) == pytest.approx((10 + 90 * (15 / 90) ** 2) / 25)


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=5),
    st.floats(0.0, 0.999),
    st.data(),
)
def test_carried_over_is_the_share_that_a_running_mean_keeps(steps, decay, data):
    earlier = data.draw(st.integers(1, len(steps) - 1))
    later = data.draw(st.integers(earlier + 1, len(steps)))
    before, everything = 0.0, 0.0
    for step in range(sum(steps[:later])):
        gradient = 1.0 if step < sum(steps[:earlier]) else 0.0
        before = decay * before + (1 - decay) * gradient
        everything = decay * everything + (1 - decay)
    assert carried_over(decay, steps, earlier, later) == pytest.approx(before / everything, abs=1e-9)


def test_the_overlap_table_is_measured_on_the_stored_eligibility(trained):
    folder = trained()
    table = overlap_table(history_of(folder))
    assert len(table) == 3 * 3
    assert set(zip(table["task"], table["other_task"], strict=True)) == {(1, 2), (1, 3), (2, 3)}
    kept = [torch.load(folder / "artifacts" / f"eligibility-00{task}.pt")["layers"] for task in (1, 3)]
    name = list(kept[0])[1]
    row = table[(table["layer"] == 2) & (table["task"] == 1) & (table["other_task"] == 3)].iloc[0]
    assert row["layer_name"] == "8 to 6 units"
    marks = [busiest(layers[name]) for layers in kept]
    assert row["shared"] == pytest.approx(float((marks[0] * marks[1]).sum()) / 12)
    # 20 images of each task in batches of 8 are 3 steps, twice.
    v = np.cumsum(0.999 ** np.arange(17, -1, -1))
    assert row["carried_over"] == pytest.approx(v[5] / v[-1])
    state = torch.load(folder / "checkpoint.pt")["tracked"]["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {18}


# --------------------------------------------------------------------------------------------------- forgetting


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.data())
def test_the_terms_by_task_have_the_means_that_are_reported(tasks, seed, data):
    learned = data.draw(st.integers(1, tasks))
    random = np.random.default_rng(seed)
    matrix, joint = random.random((tasks + 1, tasks)), random.random((tasks + 1, tasks))
    matrix[learned + 1 :] = np.nan
    table = forgetting_table(matrix, learned, joint)
    assert list(table["task"]) == list(range(1, learned + 1))
    for name in ("forgetting", "backward_transfer", "forward_transfer"):
        expected = getattr(continual, name)(matrix, learned)
        assert table[name].mean() == pytest.approx(expected, nan_ok=True)
        assert table[name].notna().sum() == learned - 1
    assert table["final"].mean() == pytest.approx(continual.average_accuracy(matrix, learned))
    differences = [joint[task, task - 1] - matrix[task, task - 1] for task in range(1, learned + 1)]
    np.testing.assert_allclose(table["intransigence"], differences)


def test_the_history_is_what_the_run_logged(trained):
    history = history_of(trained())
    np.testing.assert_array_equal(history.matrix, stored_matrix(trained()))
    assert (history.learned, history.rounds, history.last, history.borders) == (TASKS, EPOCHS, 6, [2, 4])
    # Untrained and after each task all tasks are measured, in between those that were begun.
    assert history.curves.groupby("step")["task"].apply(list).to_dict() == {
        0: [1, 2, 3],
        1: [1],
        2: [1, 2, 3],
        3: [1, 2],
        4: [1, 2, 3],
        5: [1, 2, 3],
        6: [1, 2, 3],
    }
    at_end = history.curves[history.curves["step"] == 4].sort_values("task")["accuracy"]
    np.testing.assert_array_equal(at_end, history.matrix[2])


def test_without_a_switch_a_selective_run_shows_forgetting_eligibility_and_gates(trained):
    folder = trained()
    outcome = look("analyze", folder)
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    matrix = stored_matrix(folder)
    assert metrics["test/accuracy"] == pytest.approx(matrix[-1].mean())
    assert metrics["test/forgetting"] == pytest.approx(np.mean(matrix[1:3, :2].max(0) - matrix[3, :2]))
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"accuracy_matrix", "accuracy_curves", "eligibility_history", "gate_history"} <= pictures
    assert {"eligibility_histogram", "gate_histogram"} <= pictures
    assert not {"overlap", "sweep_k", "confusion"} & pictures
    summary = json.loads((folder / "run.json").read_text())["summary"]
    assert "test/accuracy" in summary
    assert not [key for key in summary if key.startswith("layer")]


def test_histograms_and_means_are_those_of_the_synapses(trained):
    folder = trained()
    history = history_of(folder)
    kept = torch.load(folder / "artifacts" / "eligibility-003.pt")["layers"]
    histogram, means = distribution_tables(history, "eligibility")
    last = histogram[histogram["step"] == 6]
    assert (
        histogram.groupby(["step", "layer"])["count"].sum() == histogram.groupby(["step", "layer"])["synapses"].first()
    ).all()
    for layer, values in enumerate(kept.values(), start=1):
        counts, edges = np.histogram(values.float().numpy(), 50, (0, 1))
        rows = last[last["layer"] == layer]
        np.testing.assert_allclose(rows["low"], edges[:-1], atol=1e-12)
        # Half precision moves single values across an edge.
        assert np.abs(rows["count"].to_numpy() - counts).sum() <= 0.02 * values.numel() + 2
        mean = means[(means["step"] == 6) & (means["layer"] == layer)]["eligibility_mean"].item()
        assert mean == pytest.approx(values.double().mean().item(), abs=1e-3)
    assert set(means["layer_name"]) == {"36 to 8 units", "8 to 6 units", "6 to 3 units"}
    _, gates = distribution_tables(history, "gate")
    assert gates["gate_mean"].between(0.5, 1).all(), "k = 5 closes a gate by half at most"


@pytest.mark.parametrize("k", [10, 0])
def test_reported_eligibility_and_gates_are_those_after_the_last_round(k, trained):
    folder = trained("--plasticity-k", k)
    outcome = look("analyze", folder, "--eligibility", "--gates")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    snapshots = [torch.load(path)["layers"] for path in sorted((folder / "artifacts").glob("plasticity-*.pt"))]
    assert len(snapshots) == TASKS * EPOCHS
    for number, (layer, first) in enumerate(zip(snapshots[-1], snapshots[0], strict=True), start=1):
        # All units are kept here, in half precision.
        gate, eligibility = layer["gate"].double(), layer["eligibility"].double()
        assert metrics[f"layer {number}/gate_mean"] == pytest.approx(float(gate.mean()), abs=1e-3)
        assert metrics[f"layer {number}/eligibility_mean"] == pytest.approx(float(eligibility.mean()), abs=1e-3)
        low = float((gate < 0.5).double().mean())
        assert metrics[f"layer {number}/gate_low_ratio"] == pytest.approx(low, abs=0.02)
        assert float(eligibility.max()) == 1
        assert metrics[f"layer {number}/eligibility_mean"] != pytest.approx(first["eligibility_mean"], abs=1e-6)
        if k:
            assert 0 < low < 0.5
            # A synapse is busy where its gate is not 1: a quarter, and a few more since the last measurement.
            assert 0.15 < float((gate < 1).double().mean()) < 0.6
        else:
            assert (metrics[f"layer {number}/gate_mean"], low) == (1, 0)


def test_the_overlap_that_is_reported_is_the_mean_over_pairs_of_tasks(trained):
    folder = trained()
    outcome = look("analyze", folder, "--overlap")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    kept = [torch.load(folder / "artifacts" / f"eligibility-00{task}.pt")["layers"] for task in (1, 2, 3)]
    for number, name in enumerate(kept[0], start=1):
        marks = [busiest(layers[name]).double() for layers in kept]
        pairs = [(a * b).sum() / (0.25 * a.numel()) for a, b in itertools.combinations(marks, 2)]
        assert metrics[f"layer {number}/overlap"] == pytest.approx(float(sum(pairs) / 3), abs=1e-6)


def test_a_control_shows_forgetting_only_and_refuses_the_rest_in_one_line(trained):
    folder = trained("--optimizer", "adam", "--replay", "none")
    outcome = look("analyze", folder)
    assert outcome.code == 0, outcome.err
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {"accuracy_matrix", "accuracy_curves"}
    for switch in ("--eligibility", "--gates", "--overlap", "--sweep-k"):
        assert_refused(look("analyze", folder, switch), switch, folder.name, "adam", "--optimizer selective")


def test_a_stopped_run_shows_the_tasks_that_it_completed(base, trained):
    with interrupted_after(EPOCHS):
        options = ["--dataset", base / "tiny", "--tasks", 2, "--epochs", EPOCHS, "--hidden", 4, "--quiet"]
        outcome = plastic("train", "selective", "--runs", base / "stopped", *options)
    assert outcome.code == 130
    (folder,) = (path for path in (base / "stopped").iterdir() if (path / "run.json").exists())
    history = history_of(folder)
    assert history.learned == 1
    # The last checkpoint may be older than what was logged and kept: none of them is needed.
    (folder / "checkpoint.pt").unlink()
    outcome = plastic("analyze", "selective", "--runs", folder.parent, "--run", folder.name, "--forgetting")
    assert "completed 1 of 2 tasks" in outcome.err
    outcome = look("analyze", folder, "--forgetting")
    assert outcome.code == 0, outcome.err
    assert "test/forgetting" not in outcome.results[0]["metrics"]
    measured = look("eval", folder).results[0]["metrics"]
    assert {"test/accuracy", "test/accuracy_task_1"} <= measured.keys()
    assert measured["test/accuracy"] == outcome.results[0]["metrics"]["test/accuracy"]
    assert look("render", folder).code == 0
    assert len(pd.read_csv(folder / "tables" / "forgetting.csv")) == 1
    assert_refused(look("analyze", folder, "--overlap"), "--overlap", "1 task", "two")


def test_a_run_that_learned_no_task_is_refused(base):
    with interrupted_after(1):
        options = ["--dataset", base / "tiny", "--epochs", EPOCHS, "--hidden", 4, "--quiet"]
        plastic("train", "selective", "--runs", base / "begun", *options)
    (folder,) = (path for path in (base / "begun").iterdir() if (path / "run.json").exists())
    for verb in ("eval", "analyze", "render"):
        assert_refused(look(verb, folder), "before the end of its first task", f"--resume {folder.name}")


@pytest.mark.parametrize(
    ("name", "verb", "options"),
    [
        ("eligibility-002", "analyze", ["--overlap"]),
        ("plasticity-000002", "analyze", ["--gates"]),
        ("plasticity-000006", "render", []),
        ("network-002", "eval", []),
        ("network-003", "eval", []),
    ],
)
def test_a_missing_file_of_the_run_is_named(name, verb, options, trained, tmp_path):
    folder = shutil.copytree(trained(), tmp_path / "runs" / trained().name)
    (folder / "artifacts" / f"{name}.pt").unlink()
    assert_refused(look(verb, folder, *options), f"{name}.pt")


def test_a_completed_run_that_logged_less_than_it_learned_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained(), tmp_path / "runs" / trained().name)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    # Other tests may have looked at this run, which logs too: the second half of its training is what is lost.
    learned = [line for line in lines if json.loads(line)["stage"] == "train"]
    (folder / "metrics.jsonl").write_text("".join(learned[: len(learned) // 2]))
    assert_refused(look("analyze", folder), "metrics.jsonl")


# --------------------------------------------------------------------------------------------- joint training


def test_intransigence_is_measured_against_joint_training(trained):
    folder, joint = trained(), trained("--joint", "--replay", "none")
    outcome = look("analyze", folder, "--joint", joint.name)
    assert outcome.code == 0, outcome.err
    mine, together = stored_matrix(folder), stored_matrix(joint)
    metrics = outcome.results[0]["metrics"]
    for task in range(1, TASKS + 1):
        expected = together[task, task - 1] - mine[task, task - 1]
        assert metrics[f"test/intransigence_task_{task}"] == pytest.approx(expected)
    assert (folder / "figures" / "intransigence.png").exists()


def test_joint_runs_of_other_tasks_are_refused(trained):
    folder = trained()
    assert_refused(
        look("analyze", folder, "--joint", trained("--optimizer", "adam", "--replay", "none").name), "joint training"
    )
    other = trained("--joint", "--replay", "none", "--class-order", "2,1,0")
    assert_refused(look("analyze", folder, "--joint", other.name), "other tasks", "--class-order")
    permuted = ("--stream", "permuted", "--scenario", "domain")
    first, second = trained(*permuted), trained(*permuted, "--joint", "--replay", "none", "--seed", 1)
    assert_refused(look("analyze", first, "--joint", second.name), "seed 1", "from 0")
    assert_refused(look("analyze", folder, "--joint", "nobody"), "no run 'nobody'")


# ------------------------------------------------------------------------------------------ strengths of the gate


def test_other_strengths_are_trained_like_the_run(trained):
    folder = trained("--penalty", "ewc")
    files = sorted(path for path in folder.rglob("*"))
    control = trained("--penalty", "ewc", "--optimizer", "adam")
    history = history_of(folder)
    table = sweep_k(history, (5.0, 10.0, 5.0)).set_index("k")
    assert list(table.index) == [0, 5, 10]
    for k, expected in ((0.0, stored_matrix(control)), (5.0, stored_matrix(folder))):
        found = table.loc[k]
        np.testing.assert_array_equal(found[[f"accuracy_task_{task}" for task in range(1, TASKS + 1)]], expected[-1])
        assert found["forgetting"] == continual.forgetting(expected)
        assert found["forward_transfer"] == continual.forward_transfer(expected)
    assert sorted(path for path in folder.rglob("*")) == files, "nothing is written"


def test_sweeping_k_is_shown_and_a_strength_below_0_is_refused(trained):
    folder = trained("--iterations", 3, "--base", "sgd", "--replay", "none")
    outcome = look("analyze", folder, "--sweep-k", "--k", "2,5")
    assert outcome.code == 0, outcome.err
    metrics = outcome.results[0]["metrics"]
    assert {"k=0/accuracy", "k=2/accuracy", "k=5/forgetting"} <= metrics.keys()
    assert (folder / "figures" / "sweep_k.png").exists()
    assert (
        "(k = 0 to 5)" in figures.sweep_figure(history_of(folder), sweep_k(history_of(folder), (5.0,))).labels.subtitle
    )
    for k in ("-1", "1e9", "5,1e9"):
        wrong = float(k.split(",")[-1])
        assert_refused(look("analyze", folder, "--sweep-k", "--k", k), f"--k {wrong:g}", "from 0 to 1000000")
    assert_refused(look("analyze", folder, "--k", "1"), "--sweep-k")


# ----------------------------------------------------------------------------------------- the shared analyses


def test_analyses_by_class_are_for_outputs_that_are_classes(trained):
    outcome = look("analyze", trained(), "--sparsity")
    assert outcome.code == 0, outcome.err
    assert (trained() / "tables" / "sparsity.csv").exists()
    permuted = trained("--stream", "permuted", "--scenario", "domain")
    assert look("analyze", permuted, "--sparsity").code == 0
    for options in (("--scenario", "task"), ("--stream", "permuted", "--scenario", "class")):
        assert_refused(look("analyze", trained(*options), "--sparsity"), "--sparsity", "not the classes")
    assert_refused(look("analyze", trained(), "--other", "x"), "--other x does nothing without --cka")


# ------------------------------------------------------------------------------------------------------- drawing


def history_with(tasks, rounds, **changes):
    random = np.random.default_rng(0)
    from plastic_selective.config import Train

    matrix = random.random((tasks + 1, tasks))
    steps = [(step, task) for step in range(tasks * rounds + 1) for task in range(1, tasks + 1)]
    curves = pd.DataFrame([{"step": step, "task": task, "accuracy": random.random()} for step, task in steps])
    run = type("AnyRun", (), {"seed": 3, "id": "any"})()
    return History(run, Train.from_values({"tasks": tasks, "epochs": rounds, **changes}), rounds, matrix, curves)


def test_the_matrix_shows_its_numbers_if_they_fit():
    def numbers(tasks):
        history = history_with(tasks, 1)
        drawn = figures.matrix_figure(history).draw()
        found = {tuple(np.abs(text.get_position()).round()): text.get_text() for text in drawn.axes[0].texts}
        pyplot.close(drawn)
        return found, history.matrix

    found, matrix = numbers(4)
    assert found == {(task + 1, after): f"{100 * value:.1f}" for (after, task), value in np.ndenumerate(matrix)}
    assert numbers(30)[0] == {}


def test_figures_of_many_tasks_name_what_they_leave_out():
    assert "framed" in figures.matrix_figure(history_with(40, 1)).labels.subtitle
    few, many = (figures.curves_figure(history_with(tasks, 1)).labels.subtitle for tasks in (12, 13))
    assert "dark" not in few
    assert "dark (task 1) to light (task 13)" in many.replace("\n", " ")
    values = {"layer": 1, "layer_name": "a", "low": 0.5, "high": 0.52, "count": 3, "synapses": 3}
    for tasks, note in ((6, None), (8, "tasks 1, 2, 4, 5, 7 and 8 of 8")):
        table = pd.DataFrame([{**values, "step": step} for step in range(1, tasks + 1)])
        subtitle = figures.histogram_figure(history_with(tasks, 1), table, "gate").labels.subtitle
        assert note in subtitle if note else "tasks" not in subtitle


def test_a_film_of_many_tasks_has_a_color_bar_of_tasks():
    values = np.zeros((1, 5, 20), dtype=np.float32)
    frame = draw_frames(history_with(12, 1), [Panel("a", {0: values[0]}, 1.0)] * 2, None)[0].astype(int)
    wanted = [[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in discrete_colors(12)]
    columns = [frame[:, x] for x in range(880, 960)]
    assert any(all(np.abs(column - colour).max(axis=1).min() < 3 for colour in wanted) for column in columns)


@pytest.mark.parametrize(("tasks", "rounds"), [(2, 1), (2, 5), (10, 3), (60, 1)])
def test_ticks_are_few_whole_and_include_the_borders_of_few_tasks(tasks, rounds):
    history = history_with(tasks, rounds)
    ticks = history.ticks(most=20)
    assert len(ticks) <= 21
    assert ticks[0] == 0
    assert set(ticks) <= set(range(history.last + 1))
    assert len(set(np.diff(ticks))) == 1
    if tasks <= 20:
        assert {*history.borders, history.last} <= set(ticks)


@given(st.integers(0, 10**6), st.integers(4, 40))
def test_every_counts_in_strides_of_1_2_and_5(count, most):
    numbers = every(count, most)
    assert numbers[0] == 0
    assert numbers[-1] <= count
    assert len(numbers) <= most + 1
    assert len(set(np.diff(numbers))) <= 1


@given(st.lists(st.integers(), min_size=1, max_size=300, unique=True), st.integers(1, 70))
def test_evenly_spaced_names_include_the_last(names, most):
    chosen = evenly_spaced(names, most)
    assert len(chosen) <= most
    assert chosen[-1] == names[-1]
    places = [names.index(name) for name in chosen]
    assert len(set(np.diff(places))) <= 1
    if len(names) <= most:
        assert chosen == names


@pytest.mark.parametrize("image_shape", [(1, 4, 5), (3, 4, 5), None])
def test_a_frame_depends_on_its_step_only(image_shape):
    random = np.random.default_rng(0)
    features = int(np.prod(image_shape or (20,)))
    values = random.random((3, 7, features)).astype(np.float32)
    history = history_with(2, 3)

    def frames(steps):
        shown = {step: values[(1, 3, 6).index(step)] for step in steps}
        negative = {step: -matrix for step, matrix in shown.items()}
        return draw_frames(history, [Panel("a", shown, 1.0), Panel("b", negative, 1.0, signed=True)], image_shape)

    together, (alone,) = frames([1, 3, 6]), frames([3])
    assert all(frame.shape == (352, 960, 3) and frame.dtype == np.uint8 for frame in together)
    np.testing.assert_array_equal(together[1], alone)
    assert np.any(together[0] != together[1])
    assert np.any(together[1] != together[2])


def test_color_images_show_the_mean_of_their_channels():
    random = np.random.default_rng(1)
    history = history_with(2, 1)
    gray = random.random((1, 5, 16)).astype(np.float32)
    color = np.stack([gray - 0.125, gray, gray + 0.125], axis=2).reshape(1, 5, 48)
    one = draw_frames(history, [Panel("a", {1: gray[0]}, 1.0)] * 2, (1, 4, 4))
    three = draw_frames(history, [Panel("a", {1: color[0]}, 1.0)] * 2, (3, 4, 4))
    assert np.mean(one[0] != three[0]) < 0.01


def test_a_film_has_a_frame_for_each_round_and_its_last_frame_is_a_picture(trained):
    folder = trained()
    outcome = look("render", folder, "--layer", 1)
    assert outcome.code == 0, outcome.err
    film = imageio.imread(folder / "videos" / "plasticity_layer_1.gif")
    assert film.shape == (TASKS * EPOCHS, 352, 960, 3)
    still = imageio.imread(folder / "figures" / "plasticity_layer_1.png")
    assert np.abs(still.astype(int) - film[-1]).mean() < 1
    # A GIF has 256 colours, and the pictures must leave some to the curves.
    for colour in discrete_colors(TASKS):
        wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        assert np.abs(film[-1][:, 600:].astype(int) - wanted).max(axis=-1).min() < 8
    assert look("render", folder, "--layer", 3).code == 0
    assert_refused(look("render", folder, "--layer", 4), "--layer 4", "has 3 layers")


def test_a_control_is_shown_by_its_weights_after_each_task(trained):
    folder = trained("--optimizer", "adam", "--replay", "none")
    outcome = look("render", folder)
    assert outcome.code == 0, outcome.err
    assert len(imageio.imread(folder / "videos" / "plasticity_layer_1.gif")) == TASKS + 1
