"""Gymnasium environments: made by id, run in parallel, resumed exactly, and played greedily."""
