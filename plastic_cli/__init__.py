"""The Python interface of plastic, and what the author of a rule imports.

`plastic.train`, `evaluate`, `analyze`, `render`, `compare`, `plot`, `sweep`, `verify`, `tune`, `report` and `cite`
are the commands as functions. `plastic.fit` trains a learner or a network of your own. `RunStore` and `StoredRun` read
runs.
"""

from __future__ import annotations

import lazy_loader

# `__init__.pyi` lists the names; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
