"""Tensors in nested tuples, lists, dictionaries and dataclasses."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from plastic_cli.credit.nested import mapped, tensors_of

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Output:
    logits: Tensor
    states: tuple[Tensor, ...]
    name: str = "output"


@dataclass(frozen=True)
class Frozen:
    logits: Tensor


@dataclass
class Settings:
    rate: float


A, B, C = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)


@pytest.mark.parametrize(
    ("value", "tensors"),
    [
        (A, [A]),
        ((A, "text", [B, None]), [A, B]),
        (Pair(A, {"key": B}), [A, B]),
        (OrderedDict(b=A, a=[B]), [A, B]),
        (Output(A, (B, C)), [A, B, C]),
        (Frozen(A), [A]),
        ((1, "text", None, torch.float32), []),
    ],
)
def test_tensors_are_found_in_order_and_replaced_in_the_same_structure(value, tensors):
    assert [id(tensor) for tensor in tensors_of(value)] == [id(tensor) for tensor in tensors]
    made = mapped(lambda tensor: tensor + 10, value)
    assert type(made) is type(value)
    assert [tensor.item() for tensor in tensors_of(made)] == [tensor.item() + 10 for tensor in tensors]
    # The argument is as it was.
    assert [id(tensor) for tensor in tensors_of(value)] == [id(tensor) for tensor in tensors]


def test_everything_else_is_kept():
    pair = mapped(torch.neg, Pair(A, "text"))
    assert (pair.first.item(), pair.second) == (-1.0, "text")
    assert list(mapped(torch.neg, OrderedDict(b=A, a=5)).items()) == [("b", -A), ("a", 5)]
    assert mapped(torch.neg, Output(A, (B,))).name == "output"
    for value in (SimpleNamespace(tensor=A), Settings(0.1), Output, "text", None):
        assert mapped(torch.neg, value) is value
        assert list(tensors_of(value)) == []


def test_a_result_with_names_from_torch_keeps_its_type():
    result = torch.tensor([[1.0, 3.0, 2.0]]).max(1)
    made = mapped(torch.neg, result)
    assert type(made) is type(result)
    assert (made.values.item(), made.indices.item()) == (-3.0, -1)
    assert mapped(torch.neg, torch.Size([2, 3])) == torch.Size([2, 3])
