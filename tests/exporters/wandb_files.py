"""Reads the files that W&B writes offline, with W&B's own messages: its reader is not part of its Python package.

A file is a log as LevelDB writes it: blocks of 32 KiB that hold records, each with a checksum (4 bytes), a length (2)
and a kind (1: whole, 2: first part, 3: middle, 4: last).
"""

from __future__ import annotations

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32 * 1024
HEADER = 7


def records(path):
    """The messages in a `.wandb` file, in order."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = HEADER, []
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        if kind == 0:
            break
        parts.append(content[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (1, 4):
            yield Record.FromString(b"".join(parts))
            parts = []


def history(path):
    """The rows of the history as dictionaries."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def configuration(path):
    """The configuration, from the record of the run."""
    for record in records(path):
        if record.WhichOneof("record_type") == "run":
            return record.run, {item.key: json.loads(item.value_json) for item in record.run.config.update}
    raise AssertionError("no record of a run")


def summary(path):
    """What was put into the summary."""
    return {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in records(path)
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }


def exit_code(path):
    """The exit code with which the run ended."""
    return [record.exit.exit_code for record in records(path) if record.WhichOneof("record_type") == "exit"][-1]
