"""Typed options: one model per command is its options, its TOML keys and its stored configuration."""
