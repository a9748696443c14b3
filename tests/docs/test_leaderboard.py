"""The leaderboard: every setting of the reference and of the recipes is one row, with numbers that can be counted."""

from __future__ import annotations

import math
import shlex
import statistics
from dataclasses import astuple, replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

import leaderboard
from leaderboard import COLUMNS, Controls, Planned, command_of, lines_of, planned_settings, shortest_options
from plastic_cli.analysis.cost import cost_of
from plastic_cli.commands.invocation import TrainInvocation
from plastic_cli.commands.options import build_command
from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.reports.grouping import setting_and_data
from plastic_cli.reports.html_tables import page_cell, table_html
from plastic_cli.resolve import resolve
from plastic_cli.runs.reference import read_reference, setting_text
from plastic_cli.sweeps.plan import planned
from plastic_cli.tables import NOTHING, text_and_detail
from reports.references import record_of, reference_of

HEADINGS = [column.heading for column in COLUMNS]
OWN, CONTROL, FLOOR = (0.90, 0.92, 0.97), (0.80, 0.82, 0.84), (0.70, 0.71, 0.75)
OF_OWN = {"hidden": (64,), "model": "mlp", "epochs": 10, "batch_size": 32}
IMAGES = {"checksum": "a" * 64, "image_shape": [1, 8, 8], "classes": 10}


def plan_of(rule, recipes=("some-recipe",), seeds=5, **options):
    """A setting of a recipe."""
    config = train_model(find_rule(rule)).from_values(options)
    return Planned(planned(rule, config, "plastic 0.2.0", {}), recipes, seeds)


def by_key(*plans):
    return {setting_and_data(each.run.rule, each.run.dataset, each.run.config): each for each in plans}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Three seeds of a rule, of its control in a newer version, and of random features; other settings of one seed."""
    records = []

    def add(rule, values, *, version="0.2.0", metric="test/accuracy", **options):
        for seed, value in enumerate(values):
            events = {"train/events": 10.0, "train/event_images": 40.0, "train/synaptic_updates": 100.0 * (seed + 1)}
            record = record_of(rule, seed, {metric: value, **events}, number=len(records),
                               version=version, **options)  # fmt: skip
            machine = {"processor": "Some CPU", "device": "cpu", "threads": 2}
            data = {**IMAGES, "note": "not the official split" if record.dataset == "emnist" else ""}
            records.append(
                replace(record, machine=machine, data=data, speed={"samples": 1000 * 10, "seconds": 2.0 + seed})
            )

    add("eglp", OWN, version="0.1.0", **OF_OWN)
    add("eglp", CONTROL, hidden=(64,), model="mlp", epochs=10, batch_size=32, events="never")
    add("eglp", (0.5,), hidden=(32,), model="mlp", epochs=5, batch_size=32)
    add("backprop", FLOOR, hidden=(64,), trained="readout", epochs=10, batch_size=32)
    add("backprop", (0.99,), dataset="emnist")
    return reference_of(tmp_path_factory.mktemp("reference"), records, recipe="measured-recipe")


@pytest.fixture(scope="module")
def table(reference):
    plans = by_key(
        plan_of("backprop", ("not-run",), dataset="cifar10", epochs=3),
        plan_of("backprop", ("not-run",), dataset="digits", epochs=3),
        plan_of("eglp", ("measured-recipe", "other"), seeds=5, dataset="digits", hidden=(32,), model="mlp", epochs=5,
                batch_size=32),
    )  # fmt: skip
    return leaderboard.leaderboard(reference, plans)


def texts(table, heading):
    place = HEADINGS.index(heading)
    cells = [page_cell(row[place], heading) for row in table.table.rows]
    return [cell.text for cell in cells]


def cell(table, number, heading):
    return page_cell(table.table.rows[number][HEADINGS.index(heading)], heading)


def test_rows_are_in_the_order_of_data_set_and_result_and_those_not_measured_last(table):
    assert texts(table, "data set") == [*["digits"] * 4, "emnist*", "cifar10", "digits"]
    assert texts(table, "result") == [
        "93.00", "82.00", "72.00", "50.00", "99.00", "not measured", "not measured"
    ]  # fmt: skip
    assert texts(table, "rule") == ["eglp", "eglp", "backprop", "eglp", "backprop", "backprop", "backprop"]
    assert "emnist: not the official split." in table.table.caption
    assert "11 runs of 5 settings are measured, 2 settings are not and follow below." in table.table.caption


def test_a_result_is_the_mean_over_the_seeds_with_its_t_interval(table):
    half = t.ppf(0.975, 2) * statistics.stdev(OWN) / math.sqrt(3)
    mean = statistics.mean(OWN)
    shown = cell(table, 0, "result")
    assert float(shown.sort) == pytest.approx(mean, rel=1e-12)
    assert shown.detail == f"[{100 * (mean - half):.2f}, {min(100.0, 100 * (mean + half)):.2f}]", (
        "a share is at most 100%"
    )
    assert texts(table, "version") == ["0.1.0", *["0.2.0"] * 4, NOTHING, NOTHING]
    assert not any("version" in text for text in texts(table, "setting")), "it has a column of its own"
    assert cell(table, 0, "machine").text == "Some CPU, cpu, 2 threads"
    assert cell(table, 4, "result").detail == "", "one seed has no interval"


def test_a_control_has_the_options_of_the_setting_and_is_marked(table):
    shown = cell(table, 0, "control")
    assert (shown.text, float(shown.sort)) == ("82.00", pytest.approx(statistics.mean(CONTROL)))
    assert shown.source == "no events; random features: 72.00"
    assert cell(table, 1, "rule").detail == "control: no events"
    assert cell(table, 1, "control").text == NOTHING
    assert cell(table, 2, "rule").detail == "control: random features"
    assert cell(table, 3, "control").text == NOTHING, "another size has another control"
    assert table.controls == (False, True, True, False, True, True, True)


def test_gaps_are_visible(table):
    assert [texts(table, heading)[5] for heading in ("seeds", "version", "machine", "seconds")] == [
        "0",
        NOTHING,
        NOTHING,
        NOTHING,
    ]
    assert cell(table, 5, "seeds").detail == "of 5 in the recipe"
    assert cell(table, 3, "seeds").text == "1"
    assert cell(table, 3, "seeds").detail == "of 5 in the recipe"
    assert cell(table, 0, "seeds").detail == "", "no recipe asks for more"
    assert table.recipes[5] == ("not-run",)
    assert table.recipes[3] == ("measured-recipe", "other")
    assert table.recipes[0] == ("measured-recipe",)


def test_the_price_is_the_mean_cost_of_the_runs(table, reference):
    rows = reference.with_setting("eglp", reference.record("20261101-0000").config)
    costs = [cost_of(reference.record(row["run"])) for row in rows]
    assert len({astuple(cost) for cost in costs}) > 1, "the runs have different numbers of events"
    expected = {
        "samples": [cost.samples for cost in costs],
        "messages": [cost.messages for cost in costs],
        "FLOPs": [cost.inference_flops + cost.learning_flops for cost in costs],
        "updates": [cost.updates for cost in costs],
        "bytes": [cost.state_bytes + cost.step_bytes for cost in costs],
        "seconds": [2.0, 3.0, 4.0],
    }
    for heading, values in expected.items():
        assert float(cell(table, 0, heading).sort) == pytest.approx(statistics.mean(values), rel=1e-12), heading
    learning = leaderboard.amount(statistics.mean(cost.learning_flops for cost in costs)).text
    assert cell(table, 0, "FLOPs").detail == f"{learning} to learn"


def test_the_price_is_the_mean_of_the_runs_that_have_one(reference, monkeypatch):
    made = next(line for line in lines_of(reference, {}) if len(line.records) == len(OWN))
    costs = [cost_of(record) for record in made.records]
    known = {record.run: cost for record, cost in zip(made.records[1:], costs[1:], strict=True)}
    monkeypatch.setattr(leaderboard, "cost_of", lambda record: known.get(record.run))
    shown = dict(zip(HEADINGS, leaderboard.row(made, Controls(reference, [made])), strict=True))
    assert shown["updates"].value == pytest.approx(statistics.mean(cost.updates for cost in costs[1:]))


def test_seeds_that_failed_are_not_missing(reference):
    (made,) = [line for line in lines_of(reference, by_key(plan_of("eglp", **OF_OWN))) if line.planned]
    assert len(made.records) == len(OWN)
    for failed, detail in ((0, "of 5 in the recipe"), (1, "1 failed, of 5 in the recipe"), (2, "2 failed")):
        line = replace(made, group=replace(made.group, failed_seeds=tuple(range(failed))))
        assert leaderboard.row(line, Controls(reference, []))[HEADINGS.index("seeds")].detail == detail


def test_a_setting_of_two_recipes_needs_the_larger_number_of_seeds(monkeypatch, tmp_path):
    for name, seeds in (("few", 2), ("many", 4), ("some", 3)):
        text = f'title = "t"\nwhy = "w"\nrule = "backprop"\nseeds = {seeds}\n[options]\nepochs = 3\n'
        (tmp_path / f"{name}.toml").write_text(text)
    names = [str(tmp_path / f"{name}.toml") for name in ("few", "many", "some")]
    monkeypatch.setattr(leaderboard, "recipe_names", lambda: names)
    (found,) = planned_settings.__wrapped__().values()
    assert (found.recipes, found.seeds) == (tuple(names), 4)


def test_a_rule_without_a_cost_shows_its_samples_only(reference, monkeypatch):
    monkeypatch.setattr(leaderboard, "cost_of", lambda record: None)
    made = lines_of(reference, {})
    shown = dict(zip(HEADINGS, leaderboard.row(made[0], Controls(reference, made)), strict=True))
    assert [text_and_detail(shown[name])[0] for name in ("samples", "messages", "FLOPs", "updates", "bytes")] == [
        "10.0 k", NOTHING, NOTHING, NOTHING, NOTHING,
    ]  # fmt: skip


@given(st.floats(0, 1e20))
def test_a_count_is_shown_with_three_digits(value):
    shown, _, prefix = leaderboard.amount(value).text.partition(" ")
    read = float(shown) * 1000 ** (" kMGTPE".index(prefix) if prefix else 0)
    # A count below 1000 is whole.
    assert read == pytest.approx(value, rel=0.00501, abs=0.5 if value < 1000 else 0)
    assert len(shown.replace(".", "")) <= 3 or value >= 999.5e18
    assert leaderboard.amount(value).value == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (9996, "10.0 k"), (999_400, "999 k"), (999_600, "1.00 M"),
     (999.7, "1.00 k"), (43_120_000, "43.1 M"), (2.5e12, "2.50 T")],
)  # fmt: skip
def test_counts(value, text):
    assert leaderboard.amount(value).text == text


class Rows(HTMLParser):
    """The cells of a page as text, by row, without any script."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.headings, self.cell = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = tag
            if dict(attributes).get("scope") == "col":
                self.headings[len(self.rows[-1]) - 1] = dict(attributes)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_without_scripts_it_is_a_table_in_order(table):
    read = Rows(table_html(table))
    head, *body = read.rows
    assert head == HEADINGS
    assert not any("aria-sort" in attributes for attributes in read.headings.values()), "no column orders all rows"
    assert len(body) == len(table.table.rows)
    assert {len(row) for row in body} == {len(HEADINGS)}
    assert [row[HEADINGS.index("data set")] for row in body] == texts(table, "data set")
    assert "control: no events" in body[1][0]


def test_markdown_does_not_see_the_table(monkeypatch):
    pytest.importorskip("mkdocs", reason="the packages of the site are not installed: pip install '.[docs]'")
    import hooks

    class Page:
        def __init__(self):
            self.meta = {}

    page = Page()
    monkeypatch.setattr(leaderboard, "html", lambda: "<p>whole</p>")
    assert hooks.on_page_content("<p>other</p>", page) == "<p>other</p>"
    assert page.meta == {}
    assert hooks.on_page_content(f"<p>a</p>\n{leaderboard.MARK}\n<p>b</p>", page) == "<p>a</p>\n<p>whole</p>\n<p>b</p>"
    assert page.meta == {"hide": ["navigation", "toc"]}


# -------------------------------------------------------------------------------- what comes with plastic


@pytest.fixture(scope="module")
def lines():
    return lines_of(read_reference(), planned_settings())


def test_every_run_of_the_reference_and_every_setting_of_a_recipe_is_in_one_row(lines):
    shown = [record.run for line in lines for record in line.records]
    assert len(shown) == len(set(shown))
    completed = [row for row in read_reference().rows() if row["status"] == "completed"]
    of_seed = {(setting_text(row["rule"], row["config"]), row["data_checksum"], row["seed"]) for row in completed}
    assert len(shown) == len(of_seed)
    keys = [setting_and_data(line.group.rule, line.group.dataset, line.group.config) for line in lines]
    assert planned_settings().keys() <= set(keys)
    assert all(line.recipes for line in lines), "all runs of the reference are of recipes"
    missing = [line for line in lines if not line.records]
    assert all(line.planned is not None and line.result.metric is None for line in missing)


def test_recipes_on_data_that_nobody_has_are_shown(lines):
    of_cifar = [line for line in lines if line.group.dataset == "cifar10"]
    assert {name for line in of_cifar for name in line.recipes} >= {"eglp-eg-02-cifar10", "eglp-eg-03-cifar10"}


def test_a_command_gives_the_setting_of_its_row(lines):
    typed = []
    commands = {}
    for line in lines[::4]:
        program, verb, rule, *words = shlex.split(command_of(line))
        if verb == "sweep":
            assert rule in line.recipes
            continue
        assert (program, verb, rule) == ("plastic", "train", line.group.rule)
        model = train_model(find_rule(rule))
        if rule not in commands:
            models = {"config": model, "invocation": TrainInvocation}
            commands[rule] = build_command(rule, "", models, typed.append)
        commands[rule].main(words, standalone_mode=False)
        config = resolve(model, typed[-1]["config"]).model_dump(mode="json")
        assert setting_text(rule, config) == setting_text(rule, line.config), shlex.join(words)
        seeds = typed[-1]["invocation"].get("seeds", 1)
        assert int(seeds) == max(len(line.records), line.planned.seeds if line.planned else 0, 1)
    assert len(typed) > len(lines) / 6


def test_no_option_of_a_command_can_be_left_out(lines):
    for line in lines[::29]:
        model = train_model(find_rule(line.group.rule))
        options = shortest_options(model, line.config)
        for name in options:
            fewer = {other: value for other, value in options.items() if other != name}
            try:
                config = resolve(model, fewer).model_dump(mode="json")
            except ValueError:
                continue
            assert setting_text(line.group.rule, config) != setting_text(line.group.rule, line.config), name
