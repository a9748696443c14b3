"""Create, open and remove the folder of a run."""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plastic_cli.errors import OptionError, RunFailed, UserError
from plastic_cli.escapes import printable_line
from plastic_cli.files import remove_folder
from plastic_cli.runs.cleaning import clean_store_daily
from plastic_cli.runs.lock import locked_folder
from plastic_cli.runs.record import RunRecord, now, read_record
from plastic_cli.runs.run import Run


def check_run_name(name: str, option: str = "--name") -> None:
    """Raise OptionError if `name`, the value of `option`, is not a valid name of a run or of a learner."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise OptionError(
            f"{option} {printable_line(name)}: use letters, digits, '.', '_' and '-', beginning with a letter or digit,"
            " at most 100 characters.",
            option.removeprefix("--"),
        )


def create_run(
    runs_folder: Path,
    *,
    rule: str,
    config: Mapping[str, Any],
    dataset: str | None = None,
    name: str | None = None,
    argv: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    **options: Any,
) -> Run:
    """Create the folder of a new run and write its first record.

    dataset: the training data, if the configuration has no field `dataset`. options: those of `Run`. The id of the run
    is the time and four random letters; `mkdir` makes it unique among processes. Raises UserError for a folder that
    cannot be written and for a name that is not valid, RunFailed if the disk is full.
    """
    if name is not None:
        check_run_name(name)
    try:
        runs_folder.mkdir(parents=True, exist_ok=True)
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            identity = f"{stamp}-{''.join(secrets.choice('abcdefghjkmnpqrstuvwxyz') for _ in range(4))}"
            folder = runs_folder / identity
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        record = RunRecord(
            run=identity,
            rule=rule,
            seed=int(config.get("seed", 0)),
            config=dict(config),
            name=name,
            dataset=dataset or config.get("dataset"),
            created=now(),
            argv=list(argv),
            versions=dict(versions or {}),
        )
        try:
            record.write(folder)
        except OSError:
            folder.rmdir()
            raise
        clean_store_daily(runs_folder)
    except OSError as error:
        kind = RunFailed if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(f"cannot write to {runs_folder}: {error.strerror or error}. Choose another with --runs.") from None
    return Run(folder, record, **options)


def open_run(folder: Path, **options: Any) -> Run:
    """Open the run in `folder`; raises UserError if its record is missing, damaged or too new."""
    return Run(folder, read_record(folder), **options)


def remove_run(folder: Path) -> None:
    """Remove the run in `folder`, even if its record is damaged; a reader sees all of it or nothing.

    If `folder` is a link, only the link is removed. Raises UserError if another process writes to the run.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    with locked_folder(folder, {}):
        remove_folder(folder)
