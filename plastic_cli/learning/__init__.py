"""What rules that learn have in common: seeds, devices, the supervised loop, baselines."""
