"""`plastic train` without the training: a run of the toolkit in a fraction of a second, for tests of sweeps.

What it does is in the configuration: epochs steps of SECONDS each; `batch_size` 13 fails, 14 fails the first time, 15
is killed, 16 is refused as wrong input. Every start is noted in the file STARTS. `train/peeked` is measured on test
data.

A step on a run takes SECONDS. On a run with `batch_size` 17 it fails, with 18 it fails the first time, with 19 it is
killed, with 20 it is refused.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
import re
import signal
import sys
import time
import tomllib
from pathlib import Path

from plastic_cli.distribution import installed_version
from plastic_cli.errors import UserError
from plastic_cli.runs.folder import create_run, open_run
from plastic_cli.runs.record import now

SCRIPT = Path(__file__)


def command(arguments):
    """Return the command line that takes the place of that of `plastic`."""
    return [sys.executable, str(SCRIPT), str(os.getpid()), *arguments]


def install():
    """Have the jobs of this process run this instead of `plastic`."""
    from plastic_cli.sweeps import process

    process.command = command
    process.can_fork = lambda: False


def main():
    parent, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(130)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    options = dict(itertools.pairwise(arguments))
    store = Path(options["--runs"])
    if arguments[0] != "train":
        stage(arguments[0], store, options)
        return
    if "--resume" in options:
        run = open_run(store / options["--resume"])
    else:
        config = tomllib.loads(Path(options["--config"]).read_text())
        if config["batch_size"] == 16:
            print("error: that does nothing. Leave it out.")
            sys.exit(2)
        versions = {"rule": os.environ["INSTANT_ORIGIN"]}
        run = create_run(store, rule=arguments[1], config=config, argv=arguments, versions=versions)
    config = run.config
    with run.locked():
        _note(config, run)
        run.record.started = run.record.started or "2026-01-01T00:00:00.000+00:00"
        run.finish("running")
        done = run.record.steps_done.get("epoch", 0)
        try:
            for step in range(done, config["epochs"]):
                time.sleep(float(os.environ.get("INSTANT_SECONDS", "0")))
                run.record.steps_done["epoch"] = step + 1
                run.write_record()
        except KeyboardInterrupt:
            run.finish("interrupted")
            sys.exit(130)
        first = not (store / "failed-before").exists()
        if config["batch_size"] == 15:
            os.kill(os.getpid(), signal.SIGKILL)
        if config["batch_size"] == 13 or (config["batch_size"] == 14 and first):
            (store / "failed-before").touch()
            run.finish("failed", "train/loss became nan")
            print("Traceback of a sort\nerror: train/loss became nan")
            sys.exit(1)
        # Best at a learning rate of 0.01.
        value = 1 - abs(math.log10(config.get("learning_rate", 0.01)) + 2) / 10
        run.record.summary = {"test/accuracy": 0.5, "validation/accuracy": value, "validation/loss": 1 - value}
        run.record.summary |= {"train/peeked": 0.5, "control/accuracy": 0.4}
        run.record.measured_on = {"train/peeked": "test"}
        run.finish("completed")
    print(json.dumps({"run": run.id}))


def stage(verb, store, options):
    run = open_run(store / options["--run"], stage=verb)
    try:
        with run.locked():
            _note(run.config, run, verb)
            time.sleep(float(os.environ.get("INSTANT_SECONDS", "0")))
            kind, first = run.config["batch_size"], not (store / "failed-before").exists()
            run.log("test", accuracy=0.25)
            if kind == 20:
                print("error: that does nothing. Leave it out.")
                sys.exit(2)
            if kind == 19:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == 17 or (kind == 18 and first):
                (store / "failed-before").touch()
                print("error: there is no convergence")
                sys.exit(1)
            (run.folder / "tables").mkdir(exist_ok=True)
            (run.folder / "tables" / f"{verb}.csv").write_text("a\n1\n")
            run.files.append(f"tables/{verb}.csv")
            versions = {"plastic": installed_version(), "rule": os.environ["INSTANT_ORIGIN"]}
            text = Path(options["--config"]).read_text()
            unset = dict.fromkeys(re.findall(r"^# (\w+) =$", text, re.MULTILINE))
            run.complete_stage({**tomllib.loads(text), **unset}, versions, now())
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}")
        sys.exit(2)
    print(json.dumps({"run": run.id}))


def _note(config, run, verb="train"):
    with Path(os.environ["INSTANT_STARTS"]).open("a") as stream:
        about = {"seed": config["seed"], "batch_size": config["batch_size"], "run": run.id, "pid": os.getpid()}
        about["verb"] = verb
        about["threads"] = os.environ.get("OMP_NUM_THREADS")
        stream.write(json.dumps(about) + "\n")


if __name__ == "__main__":
    main()
