"""Confidence intervals and comparisons over seeds."""
