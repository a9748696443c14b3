"""Random seeds, devices, compiled kernels and the clock of training time."""
