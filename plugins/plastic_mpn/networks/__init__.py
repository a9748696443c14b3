"""The networks: the MPN and its controls, the agents built on them, and stored parameters."""
