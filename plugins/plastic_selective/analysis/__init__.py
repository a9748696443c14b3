"""Measures, figures and the film of a trained run."""
