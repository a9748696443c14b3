"""Typed options: the fields of one model per command are its options, its TOML keys and its stored configuration."""
