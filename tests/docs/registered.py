"""Plugins that this process finds without an installer."""

from __future__ import annotations

RULE = "alignment"
"""The rule of the page on writing one."""


def register(site, name, entry, module):
    """Let this process find a plugin, as if it were installed into `site`."""
    about = site / f"plastic_{name}-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plastic-{name}\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(f"[plastic]\n{entry} = {module}\n")
