"""Recurrent layers and multi-head attention of torch.nn as the linear maps and nonlinearities they consist of.

torch computes each of them in one function. A credit rule needs their linear maps: the errors, the noise and the
activity of every gate at every time step. The results equal those of torch up to rounding.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plastic_cli.errors import UserError

Step = Callable[[Tensor, Any, Sequence[Tensor | None]], Any]
"""One time step: the input's contribution to all gates, the state, and the weights of the state; to the next state."""


def _gru_step(gates: Tensor, h: Tensor, recurrent: Sequence[Tensor | None]) -> Tensor:
    """Cho et al. 2014 as torch.nn.GRU writes it; gates (batch, 3 hidden), h (batch, hidden)."""
    weight, bias = _weight_and_bias(recurrent)
    of_input, of_state = gates.chunk(3, -1), functional.linear(h, weight, bias).chunk(3, -1)
    reset = torch.sigmoid(of_input[0] + of_state[0])
    update = torch.sigmoid(of_input[1] + of_state[1])
    candidate = torch.tanh(of_input[2] + reset * of_state[2])
    return (1 - update) * candidate + update * h


def _lstm_step(gates: Tensor, state: tuple[Tensor, Tensor], recurrent: Sequence[Tensor | None]) -> Any:
    """Hochreiter & Schmidhuber 1997 as torch.nn.LSTM writes it; gates (batch, 4 hidden), state (h, c)."""
    h, c = state
    weight, bias = _weight_and_bias(recurrent)
    i, f, g, o = (gates + functional.linear(h, weight, bias)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    projection = recurrent[2] if len(recurrent) > 2 else None
    return (h if projection is None else functional.linear(h, projection)), c


def _elman_step(
    nonlinearity: Callable[[Tensor], Tensor], gates: Tensor, h: Tensor, recurrent: Sequence[Tensor | None]
) -> Tensor:
    weight, bias = _weight_and_bias(recurrent)
    return nonlinearity(gates + functional.linear(h, weight, bias))


def _weight_and_bias(recurrent: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    weight, bias = recurrent[0], recurrent[1]
    assert weight is not None
    return weight, bias


def _cell(step: Step, x: Tensor, state: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor | None) -> Any:
    """One time step of a cell, such as torch.nn.GRUCell."""
    b_ih, b_hh = biases or (None, None)
    return step(functional.linear(x, w_ih, b_ih), state, (w_hh, b_hh))


def _layers(step: Step, name: str, *args: Any, **kwargs: Any) -> Any:
    """All layers, directions and time steps of a recurrent layer, such as torch.nn.GRU."""
    if kwargs or len(args) != 9 or not isinstance(args[2], Sequence):
        raise UserError(
            f"{name}: a credit rule cannot unroll packed sequences. Give padded sequences, or leave the layer out with"
            " modules=."
        )
    x, state, weights, biases, layers, dropout, training, bidirectional, batch_first = args
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    per_direction = len(weights) // (layers * directions)
    finals: list[Any] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own = weights[number * per_direction : (number + 1) * per_direction]
            w_ih, w_hh, b_ih, b_hh = own[:4] if biases else (*own[:2], None, None)
            recurrent = (w_hh, b_hh, own[-1]) if per_direction % 2 else (w_hh, b_hh)
            first = tuple(part[number] for part in state) if isinstance(state, tuple) else state[number]
            steps = functional.linear(x, w_ih, b_ih).unbind(0)
            hidden, final = _run(step, steps[::-1] if direction else steps, first, recurrent)
            outputs.append(torch.stack(hidden[::-1] if direction else hidden))
            finals.append(final)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout and layer < layers - 1:
            x = functional.dropout(x, dropout, training)
    output = x.transpose(0, 1) if batch_first else x
    if isinstance(state, tuple):
        return output, torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])
    return output, torch.stack(finals)


def _run(
    step: Step, steps: Sequence[Tensor], state: Any, recurrent: Sequence[Tensor | None]
) -> tuple[list[Tensor], Any]:
    """Return the output of each time step and the last state."""
    outputs = []
    for gates in steps:
        state = step(gates, state, recurrent)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return outputs, state


def _attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention (Vaswani et al. 2017) as torch.nn.functional.multi_head_attention_forward computes it.

    query (time, batch, features), key and value (source time, batch, features); or all without batch.
    """
    bound = _ATTENTION.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if given["add_zero_attn"] or any(given[name] is not None for name in ("bias_k", "bias_v", "static_k", "static_v")):
        raise UserError(
            "a credit rule cannot teach nn.MultiheadAttention with add_bias_kv, add_zero_attn or static keys. Switch"
            " them off, or leave the layer out with modules=."
        )
    batched, heads = given["query"].ndim == 3, given["num_heads"]
    q, k, v = (_heads(part, heads) for part in _projections(given, batched=batched))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    for mask in _masks(given["attn_mask"], given["key_padding_mask"], batch=len(q), heads=heads):
        scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, -1)
    if given["training"] and given["dropout_p"]:
        weights = functional.dropout(weights, given["dropout_p"])
    # (batch, heads, time, size) to (time, batch, features)
    joined = (weights @ v).permute(2, 0, 1, 3).flatten(2)
    output = functional.linear(joined, given["out_proj_weight"], given["out_proj_bias"])
    shown = None
    if given["need_weights"]:
        shown = weights.mean(1) if given["average_attn_weights"] else weights
    if not batched:
        output, shown = output.squeeze(1), None if shown is None else shown.squeeze(0)
    return output, shown


def _projections(given: Mapping[str, Any], *, batched: bool) -> Sequence[Tensor]:
    """Return queries, keys and values (time, batch, features) of all heads."""
    parts = [given[name] for name in ("query", "key", "value")]
    joint, bias = given["in_proj_weight"], given["in_proj_bias"]
    same = parts[0] is parts[1] and parts[1] is parts[2]
    parts = parts if batched else [part.unsqueeze(1) for part in parts]
    if same and not given["use_separate_proj_weight"]:
        return functional.linear(parts[0], joint, bias).chunk(3, -1)
    separate = [given[f"{name}_proj_weight"] for name in "qkv"]
    weights = separate if given["use_separate_proj_weight"] else joint.chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return [functional.linear(*of_part) for of_part in zip(parts, weights, biases, strict=True)]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(time, batch, features) to (batch, heads, time, features / heads)."""
    split: Tensor = x.unflatten(-1, (heads, -1))
    return split.permute(1, 2, 0, 3)


def _masks(attn_mask: Tensor | None, key_padding_mask: Tensor | None, *, batch: int, heads: int) -> list[Tensor]:
    """Return the masks in a shape that broadcasts over scores (batch, heads, time, source time)."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (batch, heads)))
    if key_padding_mask is not None:
        masks.append(key_padding_mask.view(-1, 1, 1, key_padding_mask.shape[-1]))
    return masks


def _of(name: str) -> Any:
    return getattr(torch._C._VariableFunctions, name)


_ATTENTION = inspect.signature(functional.multi_head_attention_forward)

PARTS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    _of("gru"): partial(_layers, _gru_step, "nn.GRU"),
    _of("lstm"): partial(_layers, _lstm_step, "nn.LSTM"),
    _of("rnn_tanh"): partial(_layers, partial(_elman_step, torch.tanh), "nn.RNN"),
    _of("rnn_relu"): partial(_layers, partial(_elman_step, torch.relu), "nn.RNN"),
    _of("gru_cell"): partial(_cell, _gru_step),
    _of("lstm_cell"): partial(_cell, _lstm_step),
    _of("rnn_tanh_cell"): partial(_cell, partial(_elman_step, torch.tanh)),
    _of("rnn_relu_cell"): partial(_cell, partial(_elman_step, torch.relu)),
    functional.multi_head_attention_forward: _attention,
}
"""The functions that are replaced by their parts, and the function that computes the same from these parts."""
