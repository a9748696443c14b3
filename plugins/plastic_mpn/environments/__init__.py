"""Gymnasium environments: created by id, run in parallel, resumed exactly; and greedy episodes in them."""
