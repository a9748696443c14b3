"""Fixtures: tiny data sets on disk, the real ones if this machine has them, and no network."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from data.tiny_sets import write_mnist

# Read before a test removes the variable.
_REAL_DATA = os.environ.get("PLASTIC_DATA")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """Ignore the user's data folder, and block the network."""

    def refuse(*_args, **_keywords):
        raise AssertionError("a test reached for the network")

    monkeypatch.delenv("PLASTIC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def real_data():
    """The folder with real data sets, in torchvision's layout."""
    if not _REAL_DATA or not (Path(_REAL_DATA) / "MNIST" / "raw").is_dir():
        pytest.skip("no real data: set PLASTIC_DATA to a folder with MNIST/raw")
    return Path(_REAL_DATA)


@pytest.fixture
def mnist_folder(tmp_path):
    """A data folder with a tiny set in the place of MNIST."""
    write_mnist(tmp_path / "MNIST" / "raw")
    return tmp_path
