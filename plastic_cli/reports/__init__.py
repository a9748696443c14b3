"""What all runs together show: groups of seeds, tables, published claims and figures."""
