"""Compiled kernels: the MPN sequence with its gradient, and the gradient step of Q-learning."""
