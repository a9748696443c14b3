"""Continual learning: components, training and evaluation, and the artifacts and history of a run."""
