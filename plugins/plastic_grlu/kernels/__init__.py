"""The rule compiled with numba: the same numbers as rule.py, fast enough to learn image by image."""
