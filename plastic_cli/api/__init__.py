"""The Python interface: one function for each command, with the same options, runs and store."""
