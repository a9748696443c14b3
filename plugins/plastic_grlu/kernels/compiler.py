"""The compiler of this rule's kernels."""

from pathlib import Path

from plastic_cli.numerics.kernels import Kernels

kernel = Kernels(Path(__file__).parent).kernel
