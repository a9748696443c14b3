"""Measures and figures of trained GRLU networks."""
