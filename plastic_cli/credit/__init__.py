"""Credit assignment on any torch module: the interface of credit rules, and what they share to observe a module."""
