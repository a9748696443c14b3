"""The equations of meta-learned plasticity with random feedback, as pure functions of tensors.

Source: Shervani-Tabar & Rosenbaum, Nature Communications 14:1805 (2023), doi 10.1038/s41467-023-37562-1. Equation
numbers are the paper's.

A network of layers 0 to L without biases: z_l = W_l y_{l-1} (1), y_l = sigma(z_l) (2), where W_l is the paper's
W_{l-1,l} and sigma the softplus with beta = 10; the output y_L is a softmax. The error reaches lower layers through
feedback B: e_L = y_L - one-hot, e_l = (B_{l+1} e_{l+1}) sigma'(z_l) (3), and at the input e_0 = (B_1 e_1) (1 -
exp(-beta y_0)) (24). The change of the weights is a sum of terms, dW_l = sum_r theta_r F_r (5). One theta serves all
layers. Meta-learning minimizes the cross-entropy of the queries plus l1 sum_r |theta_r| (6).

Every term takes the weights of a layer, W (..., out, in), and of one sample the activity and error of the layer below,
y_pre and e_pre (..., in), and of the layer above, y_post and e_post (..., out). It returns the change of W, (..., out,
in). Leading dimensions are free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BETA = 10.0
"""Sharpness of the softplus."""

Expression = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class Term(NamedTuple):
    """A candidate term: name, expression F(W, y_pre, y_post, e_pre, e_post), and whether the expression uses e_pre."""

    name: str
    expression: Expression
    uses_e_pre: bool = True


def pseudo_gradient(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F0 (14) = -e_l y_{l-1}^T: gradient descent if B is the transpose of W."""
    return -outer(e_post, y_pre)


def presynaptic_error(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F1 (15) = -y_l e_{l-1}^T."""
    return -outer(y_post, e_pre)


def ehebb(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F2 (16) = -e_l e_{l-1}^T: a Hebbian rule for errors (eHebb)."""
    return -outer(e_post, e_pre)


def weight_decay(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F3 (17) = -W_l."""
    return -W


def error_alone(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F4 (18) = -1_l e_{l-1}^T."""
    return -outer(torch.ones_like(y_post), e_pre)


def scaled_gradient(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F5 (19) = -e_l (1_l^T y_l) y_{l-1}^T."""
    return -y_post.sum(-1)[..., None, None] * outer(e_post, y_pre)


def recalled_error(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F6 (20) = -y_l y_l^T W_l e_{l-1} e_{l-1}^T."""
    return -form(y_post, W, e_pre) * outer(y_post, e_pre)


def recalled_gradient(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F7 (21) = -e_l y_l^T W_l e_{l-1} y_{l-1}^T."""
    return -form(y_post, W, e_pre) * outer(e_post, y_pre)


def answered_error(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F8 (22) = -y_l y_{l-1}^T W_l^T e_l e_{l-1}^T."""
    return -form(e_post, W, y_pre) * outer(y_post, e_pre)


def oja(W: Tensor, y_pre: Tensor, y_post: Tensor, e_pre: Tensor, e_post: Tensor) -> Tensor:
    """F9 (23) = y_l y_{l-1}^T - (y_l y_l^T) W_l: Oja's subspace rule, which makes the rows of W orthonormal."""
    return outer(y_post, y_pre - backward(W, y_post))


TERMS: dict[int | str, Term] = {
    0: Term("pseudo-gradient", pseudo_gradient, uses_e_pre=False),
    1: Term("presynaptic-error", presynaptic_error),
    2: Term("ehebb", ehebb),
    3: Term("decay", weight_decay, uses_e_pre=False),
    4: Term("error-alone", error_alone),
    5: Term("scaled-gradient", scaled_gradient, uses_e_pre=False),
    6: Term("recalled-error", recalled_error),
    7: Term("recalled-gradient", recalled_gradient),
    8: Term("answered-error", answered_error),
    9: Term("oja", oja, uses_e_pre=False),
}
"""The candidate terms by the index r of the paper. `TERMS[10] = Term(...)` adds an eleventh term.

The key of a term that `--terms MODULE:TERM` names is this text.
"""


def plasticity_update(
    W: Tensor,
    y_pre: Tensor,
    y_post: Tensor,
    e_pre: Tensor,
    e_post: Tensor,
    theta: Tensor,
    terms: Sequence[int | str],
) -> Tensor:
    """Return dW = sum_r theta_r F_r (5) for one layer, (..., out, in).

    W (..., out, in); y_pre, e_pre (..., in); y_post, e_post (..., out); theta (..., len(terms)), in the order of
    `terms`, which are keys of TERMS; leading dimensions broadcast. Raises ValueError if theta has another length or a
    term is unknown.
    """
    if theta.dim() == 0 or theta.shape[-1] != len(terms):
        raise ValueError(f"theta is {tuple(theta.shape)} for {len(terms)} terms: its last dimension has one for each")
    for number in terms:
        if number not in TERMS:
            raise ValueError(f"there is no term {number}; the terms are {', '.join(map(str, TERMS))}")
    change = torch.zeros_like(W)
    for strength, number in zip(theta.unbind(-1), terms, strict=True):
        change = change + strength[..., None, None] * TERMS[number].expression(W, y_pre, y_post, e_pre, e_post)
    return change


def term_label(key: int | str) -> str:
    """Return what figures call a term: its index and name, or MODULE:TERM."""
    return key if isinstance(key, str) else f"{key} {TERMS[key].name}"


def softplus(z: Tensor) -> Tensor:
    """sigma(z) = log(1 + exp(beta z)) / beta, of any shape. The meta-gradient needs its second derivative."""
    return functional.softplus(z, BETA, threshold=30)


def derivative(y: Tensor) -> Tensor:
    """sigma'(z) = 1 - exp(-beta y), from y = sigma(z). The input y_0 uses the same expression (24)."""
    return -torch.expm1(-BETA * y)


def forward(W: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Return y_0 to y_L (1, 2) for x (..., inputs): y_0 is x, y_L a softmax. W: (..., out, in) for each layer."""
    y = [x]
    for layer in W[:-1]:
        y.append(softplus(response(layer, y[-1])))
    return [*y, torch.softmax(response(W[-1], y[-1]), -1)]


def errors(B: Sequence[Tensor], y: Sequence[Tensor], target: Tensor) -> list[Tensor]:
    """Return e_0 to e_L (3, 24) for activity y of `forward` and a one-hot target (..., classes).

    B: for each layer, the feedback from it to the layer below, in the shape of W, (..., out, in). Symmetric feedback is
    W itself.
    """
    e = [y[-1] - target]
    for layer in reversed(range(len(B))):
        e.insert(0, backward(B[layer], e[0]) * derivative(y[layer]))
    return e


def direct_errors(B: Sequence[Tensor], y: Sequence[Tensor], target: Tensor) -> list[Tensor]:
    """Return e_0 to e_L for feedback from the output to each layer l < L: B[l] (..., classes, units of l)."""
    last = y[-1] - target
    return [backward(feedback, last) * derivative(below) for feedback, below in zip(B, y, strict=False)] + [last]


def sign_concordant(B: Sequence[Tensor], W: Sequence[Tensor]) -> list[Tensor]:
    """Return feedback with the magnitudes of B and the signs of W, see `random_magnitudes`."""
    return [random_magnitudes(feedback, weights) for feedback, weights in zip(B, W, strict=True)]


def random_magnitudes(M: Tensor, W: Tensor) -> Tensor:
    """B = |M| sign(W) for random magnitudes M: sign-concordant feedback, of any shape. The sign of 0 counts as 1.

    Liao, Leibo & Poggio 2016, arXiv 1510.05067, redraw M for each batch (batchwise). Moskovitz, Litwin-Kumar & Abbott
    2018, arXiv 1812.06488, also compare magnitudes that are drawn once (frozen).
    """
    return torch.copysign(M, W)


def uniform_sign(W: Tensor, magnitude: float) -> Tensor:
    """B = m sign(W) with one magnitude m for a layer: uniform sign-concordant feedback.

    Liao, Leibo & Poggio 2016, with m = 1. Xiao et al. 2018, arXiv 1811.03567, scale the signs by the standard deviation
    of the initial weights, so that errors neither grow nor vanish over many layers. The sign of 0 is 0.
    """
    return magnitude * W.sign()


def kolen_pollack(W: Tensor, difference: Tensor) -> Tensor:
    """B = W - D: feedback that receives the same changes as W; W and B both decay, so that D = W - B shrinks.

    W <- (1 - lambda) W + dW and B <- (1 - lambda) B + dW give D <- (1 - lambda) D, whatever dW is. Kolen & Pollack
    1994; Akrout et al. 2019, arXiv 1904.05391.
    """
    return W - difference


def weight_mirror(B: Tensor, W: Tensor, noise: Tensor, rate: float) -> Tensor:
    """B after one step of the weight mirror: B <- (1 - rate) B + rate <(W xi) xi^T> / sigma^2.

    The layer below sends noise xi of mean 0 and variance sigma^2 = 1; the layer above responds with W xi, without bias.
    The mean of the product is W, so that B follows W. W and B (out, in); noise (samples, in). Akrout et al. 2019, arXiv
    1904.05391, who leave out the division by sigma^2, so that their B follows a multiple of W.
    """
    return (1 - rate) * B + (rate / len(noise)) * response(W, noise).T @ noise


def factors_above(
    y_post: Tensor,
    e_post: Tensor,
    theta: Mapping[int, float],
    W_y_pre: Tensor | None,
    W_e_pre: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return a and c with sum_r theta_r F_r (5) = a y_pre^T + c e_pre^T for each sample, without F3.

    All tensors are (..., samples, out). W_y_pre, W_e_pre: W y_pre and W e_pre; W_y_pre may be None without F8, and
    W_e_pre without F6 and F7. c is None if no term uses e_pre. The second factor of F9 is left out.
    """
    strength = dict.fromkeys(range(10), 0.0) | dict(theta)
    of_y = -strength[0] * e_post
    if strength[5]:
        of_y = of_y - strength[5] * y_post.sum(-1, keepdim=True) * e_post
    if strength[9]:
        of_y = of_y + strength[9] * y_post
    if not any(strength[number] for number in (1, 2, 4, 6, 7, 8)):
        return of_y, None
    of_e = -strength[1] * y_post - strength[2] * e_post - strength[4]
    if strength[6] or strength[7]:
        assert W_e_pre is not None
        recalled = (y_post * W_e_pre).sum(-1, keepdim=True)
        of_e = of_e - strength[6] * recalled * y_post
        of_y = of_y - strength[7] * recalled * e_post
    if strength[8]:
        assert W_y_pre is not None
        of_e = of_e - strength[8] * (e_post * W_y_pre).sum(-1, keepdim=True) * y_post
    return of_y, of_e


def second_factor_of_oja(W: Tensor, y_post: Tensor, theta: Mapping[int, float]) -> Tensor:
    """Return the sum over samples of -theta_9 (y_l y_l^T) W_l (23): W (..., out, in), y_post (..., samples, out)."""
    strength = theta.get(9, 0.0)
    if not strength:
        return torch.zeros_like(W)
    y = y_post.transpose(-1, -2)
    samples, units = y_post.shape[-2:]
    # Both orders are the same product; the smaller matrix between them costs less.
    return -strength * (y @ (y_post @ W) if samples < units else (y @ y_post) @ W)


def orthonormality(W: Tensor, y_pre: Tensor, y_post: Tensor) -> Tensor:
    """E_W = |W y_pre - W W^T y_post|^2 (11, 12), (...,): 0 at the fixed point of Oja's rule.

    W (out, in), y_pre (..., in), y_post (..., out).
    """
    return (response(W, y_pre) - response(W, backward(W, y_post))).square().sum(-1)


def logits(W: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return z_L (..., classes) for x (..., inputs), before the softmax."""
    return response(W[-1], forward(W, x)[-2])


def outer(a: Tensor, b: Tensor) -> Tensor:
    """A b^T: (..., n) and (..., m) to (..., n, m)."""
    return a[..., :, None] * b[..., None, :]


def response(W: Tensor, y: Tensor) -> Tensor:
    """W y: (..., n, m) and (..., m) to (..., n); one W (n, m) for any number of y."""
    if W.ndim == 2:
        return y @ W.T
    return torch.matmul(W, y[..., None])[..., 0]


def backward(W: Tensor, e: Tensor) -> Tensor:
    """W^T e: (..., n, m) and (..., n) to (..., m); one W (n, m) for any number of e."""
    if W.ndim == 2:
        return e @ W
    return torch.matmul(e[..., None, :], W)[..., 0, :]


def form(a: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """a^T W b: (..., n), (..., n, m) and (..., m) to (..., 1, 1)."""
    return (a * response(W, b)).sum(-1)[..., None, None]
