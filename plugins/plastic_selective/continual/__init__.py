"""Continual learning: the stream of tasks, what learns it, training, evaluation and what a run keeps."""
