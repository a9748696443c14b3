"""The measures and figures of `plastic analyze mpn`, and the film of `plastic render mpn`."""
