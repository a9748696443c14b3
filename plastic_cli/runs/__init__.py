"""Runs: one folder for each, and all of them as tables."""
