"""The distribution that plastic is installed from: its name on the package index, its version and its extras."""

from __future__ import annotations

DISTRIBUTION = "plastic-cli"


def installed_version() -> str:
    """Return the installed version of plastic, or "unknown" where it runs from sources that are not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def install_command(extra: str) -> str:
    """Return the command that installs plastic with an extra: `pip install 'plastic-cli[tune]'`."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def origin_of(name: str, version: str) -> str:
    """Return how a run records the distribution of its rule, such as "plastic-nudge 1.0".

    Rules that come with plastic are recorded as "plastic VERSION", as they were before the distribution was renamed, so
    that older runs count as runs of the same version.
    """
    return f"{'plastic' if name == DISTRIBUTION else name} {version}"
