"""One run in one folder, and all runs as tables."""
