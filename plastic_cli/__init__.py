"""What the author of a rule imports; each name is loaded when it is first used."""

from __future__ import annotations

import lazy_loader

# `__init__.pyi` lists the names; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
