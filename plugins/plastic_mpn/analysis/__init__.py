"""What `plastic analyze mpn` measures and draws, and the film of `plastic render mpn`."""
