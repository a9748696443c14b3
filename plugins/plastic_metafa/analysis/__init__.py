"""Measures, figures and the film of a meta-learned rule."""
