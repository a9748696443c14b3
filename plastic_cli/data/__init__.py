"""Data sets as whole tensors, and what can be done to them: catalogue, loading, corruptions."""
