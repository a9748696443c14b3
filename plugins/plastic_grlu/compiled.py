"""The compiler of this rule's kernels, with every file that their machine code depends on."""

from pathlib import Path

from plastic_cli.numerics.kernels import Kernels

kernel = Kernels(Path(__file__).parent, ("compiled.py", "polynomial.py", "noise.py", "steps.py", "any_depth.py")).kernel
