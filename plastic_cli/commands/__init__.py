"""The commands of the toolkit and the commands of the rules."""
