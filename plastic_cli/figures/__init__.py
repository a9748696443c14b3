"""The look of all figures, and writing them to files."""
