"""The device of `--device`."""

from __future__ import annotations

import pytest
import torch

from plastic_cli.errors import UserError
from plastic_cli.numerics.devices import find_device


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="Use --device cpu"):
            find_device("cuda")
