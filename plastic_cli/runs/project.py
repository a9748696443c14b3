"""The git commit of the user's project, so that a run can be traced to the code that it ran with."""

from __future__ import annotations

import os
import subprocess
from typing import Any

GIT_SECONDS = 2.0
"""A repository that git takes longer to describe is not recorded."""


def project_state() -> dict[str, Any]:
    """Return the commit of the repository of the current folder, and whether tracked files differ from it ("dirty").

    The result is empty outside of a repository, before its first commit, and if git is missing, fails or is slow.
    """
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Without this git may lock the index, and another git command of the user would fail.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.decode("ascii", "replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    if not commits or not commits[0].isalnum():
        return {}
    return {"commit": commits[0], "dirty": any(not line.startswith("#") for line in lines)}
