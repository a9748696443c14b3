"""Data sets: the known ones, loading, corruptions, streams of tasks, and episodes."""
