"""Many runs: recipes that say which, the plan of what is done and left, and the engine that carries it out."""
