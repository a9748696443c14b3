"""For any content of files, a read returns valid data or raises a one-line error, within bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def _outcome(mutations, seed):
    # A separate process, because its memory is limited.
    done = subprocess.run(
        [sys.executable, str(_HERE / "mutate_files.py"), str(mutations), "--seed", str(seed), "--megabytes", "256"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_HERE.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _check(outcome, mutations):
    assert outcome["faults"] == []
    assert not outcome["ran"], "a pickle ran a command"
    assert outcome["mutations"] == mutations == outcome["read"] + outcome["refused"]
    # If all or no damaged files were readable, this would test little.
    assert mutations * 0.05 < outcome["read"] < mutations * 0.5
    assert outcome["peak_megabytes"] < 128


def test_damaged_files_are_read_or_one_line_errors():
    _check(_outcome(400, seed=0), 400)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_damaged_files_are_read_or_one_line_errors(seed, request):
    if "slow" not in request.config.option.markexpr:
        pytest.skip("takes minutes: -m slow")
    _check(_outcome(6000, seed), 6000)
