"""TensorBoard's own reader finds the whole run, once."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'plastic-cli[tensorboard]'")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status

from plastic_cli.testing import plastic


def read(run):
    reader = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def scalars(reader):
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def hparams(reader, tag):
    content = reader.SummaryMetadata(tag).plugin_data.content
    return (
        metadata.parse_session_start_info_plugin_data(content)
        if "start" in tag
        else (metadata.parse_session_end_info_plugin_data(content))
    )


def text(reader, tag):
    return reader.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        # Event files hold 32-bit numbers.
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name
    return True


def test_a_run_with_its_configuration_metrics_and_status(export):
    outcome, run = export("tensorboard")
    assert outcome.code == 0, outcome.err
    reader = read(run)
    assert equal(scalars(reader), run.points)
    assert set(scalars(reader)) == {"train/accuracy", "train/loss", "test/accuracy", "test/loss"}
    given = hparams(reader, metadata.SESSION_START_INFO_TAG)
    assert given.group_name == run.record["run"]
    assert given.hparams["learning_rate"].number_value == 0.001
    assert given.hparams["optimizer"].string_value == "adam"
    assert given.hparams["hidden"].string_value == "4"
    assert hparams(reader, metadata.SESSION_END_INFO_TAG).status == Status.STATUS_SUCCESS
    assert text(reader, "status") == "completed"
    assert "| batch_size | 64 |" in text(reader, "configuration")


def test_a_resumed_run_has_no_point_twice_and_none_of_lost_work(stop_and_resume):
    run = stop_and_resume("tensorboard")
    reader = read(run)
    assert equal(scalars(reader), run.points)
    assert text(reader, "status") == "completed"
    assert len(list((run.folder / "tensorboard").iterdir())) == 1


def test_a_failed_run_says_so(export):
    outcome, run = export("tensorboard", "--optimizer", "sgd", "--learning-rate", "1e30")
    assert outcome.code == 1
    reader = read(run)
    assert hparams(reader, metadata.SESSION_END_INFO_TAG).status == Status.STATUS_FAILURE
    assert text(reader, "status").startswith("failed: ")


def test_a_run_can_be_exported_later(train, exported):
    run = train(epochs=2)
    assert plastic("runs", "export", run.name, "--to", "tensorboard").code == 0
    assert plastic("runs", "export", "--to", "tensorboard").code == 0, "all of them, and again"
    assert equal(scalars(read(exported(run))), exported(run).points)


def test_a_value_that_was_not_finite_is_not_a_number(tmp_path):
    from plastic_tensorboard import events

    run = {"run": "r", "rule": "r", "dataset": None, "config": {}, "folder": str(tmp_path), "started": None}
    run |= {"created": "2026-01-01T00:00:00+00:00", "finished": None, "status": "crashed", "error": None}
    rows = [{"split": "test", "metric": "cost", "step": 1, "value": None, "time": 2.0, "labels": {"task": 1}}]
    events.start(run, rows)
    events.finish(run)
    reader = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    [event] = reader.Scalars("test/cost/task 1")
    assert math.isnan(event.value)
    assert event.wall_time == 2.0
