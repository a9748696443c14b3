"""Loaded by the workers of a cluster in tests: their jobs take no time."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sweeps import instant

instant.install()
