import json

import pytest

from plastic_cli.reports.curves import read_runs
from plastic_cli.runs.record import RunRecord
from reports.report_frames import CLAIMS, grlu_experiments


@pytest.fixture
def experiments():
    """Runs and their metrics: five settings of two rules, five seeds each."""
    return grlu_experiments()


@pytest.fixture
def claims_text():
    return CLAIMS


@pytest.fixture
def make_runs(tmp_path):
    """Write runs of one setting, and return all runs so far. Seed s has its values plus s times `step_of_seed`."""
    made = []

    def make(
        *,
        rule="grlu",
        dataset="digits",
        seeds=3,
        values=(0.1, 0.8, 0.9),
        rows=(),
        facts=None,
        step_of_seed=0.01,
        **config,
    ):
        for seed in range(seeds):
            run, minute = f"20261101-{len(made):04d}", f"{len(made):02d}"
            own = [value + step_of_seed * seed for value in values]
            curve = [("test", "accuracy", step, value, None) for step, value in enumerate(own)]
            record = RunRecord(
                run=run, rule=rule, seed=seed, config={"seed": seed, "dataset": dataset, **config}, dataset=dataset,
                created=f"2026-11-01T10:{minute}:00.000+00:00", started=f"2026-11-01T10:{minute}:00.000+00:00",
                steps_done={"epoch": max(len(values) - 1, 0)}, summary={"test/accuracy": own[-1]} if own else {},
            )  # fmt: skip
            for name, value in {"status": "completed", **(facts or {})}.items():
                setattr(record, name, value)
            folder = tmp_path / "store" / run
            folder.mkdir(parents=True)
            record.write(folder)
            lines = [
                {"stage": "train", "split": split, "metric": metric, "step": step, "value": value, "time": 0.0,
                 **({"labels": labels} if labels else {})}
                for split, metric, step, value, labels in (*curve, *rows)
            ]  # fmt: skip
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            made.append(folder)
        return read_runs(made)

    return make
