"""What train, eval, analyze and render do with a run; the command line and the Python interface call it."""
