"""The mathematics of EGLP: local plasticity rules, gated by an event, as pure functions of tensors.

All rules have one form. With x the presynaptic and y the postsynaptic activity of n stimuli, and e >= 0 the strength of
the event, one scalar for each stimulus or for all of them,

    dW = lr (mean over stimuli of e p x^T  -  d W)                                                              (1)

where the postsynaptic factor p (n, out) and the decay d (out,) of each unit's weights define the rule. Rows of W
(out, in) belong to postsynaptic units. In a convolution each position of each image is a stimulus, and x is its patch.

SoftHebb's step has the direction of (1). Its size depends on the largest entry of the change, D = dW / lr, and on the
norm of each unit's weights w_k:

    dW_k = lr sqrt(| |w_k| - 1 |) D_k / max |D|                                                                 (1a)

Local losses have another form. Each layer descends a loss of its own activity and of the labels, and no gradient passes
from one layer to another (Nokland & Eidnes 2019, arXiv 1901.06656):

    L = (1 - beta) L_pred + beta L_sim                                                                          (2)

Sources: the published program of event-gated local plasticity (github.com/debg48/EGLP) for Oja's rule with an event;
the docstrings name the sources of the other rules.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Event = Tensor | float
"""Strength of the event, 0 for no event: one number, or (n,), one for each stimulus."""


class Factors(NamedTuple):
    """The factors of a rule in equation (1): e p (n, out), and e d (out,), or None without decay."""

    post: Tensor
    decay: Tensor | None


def weight_change(W: Tensor, x: Tensor, factors: Factors) -> Tensor:
    """Equation (1) without lr: the change (out, in) of W for presynaptic activity x (n, in)."""
    change = factors.post.T @ x / len(x)
    return change if factors.decay is None else change - factors.decay[:, None] * W


def hebb(y: Tensor, event: Event = 1.0) -> Factors:
    """Hebb's rule (Hebb 1949): p = y. Weights grow without bound. y (n, out)."""
    return Factors(_weighted(y, event), None)


def oja(y: Tensor, event: Event = 1.0) -> Factors:
    """Oja's rule (Oja 1982, equation 3): p = y, d = mean y^2.

    Each unit's weights converge to the first principal component of the input.
    This is the published rule of EGLP: dW = lr e (mean y x^T - mean(y^2) W). y (n, out).
    """
    post = _weighted(y, event)
    return Factors(post, (post * y).mean(0))


def anti_oja(y: Tensor, W: Tensor, event: Event = 1.0) -> Factors:
    """Anti-Hebbian rule with a constant norm (Xu, Oja & Suen 1992, OJAn): p = -y, d = -mean(y^2) / |w|^2.

    Each linear unit's weights converge to the last principal component of the input. y (n, out), W (out, in).
    """
    post = -_weighted(y, event)
    return Factors(post, (post * y).mean(0) / W.square().sum(1).clamp_min(torch.finfo(W.dtype).tiny))


def bcm(y: Tensor, theta: Tensor, event: Event = 1.0) -> Factors:
    """The BCM rule (Bienenstock, Cooper & Munro 1982): p = y (y - theta), with a sliding threshold theta (out,).

    y (n, out). See `bcm_threshold`.
    """
    return Factors(_weighted(y * (y - theta), event), None)


def bcm_threshold(theta: Tensor, y: Tensor, rate: float, event: Event = 1.0) -> Tensor:
    """Return the updated BCM threshold (out,), a running mean of y^2 (Intrator & Cooper 1992). y (n, out).

    Stimuli without an event do not change it. The strength of an event has no influence.
    """
    happens = (event > 0).to(y.dtype) if isinstance(event, Tensor) else float(event > 0)
    return theta + rate * _weighted(y.square() - theta, happens).mean(0)


def softhebb(u: Tensor, inverse_temperature: float, event: Event = 1.0, *, negated: bool = True) -> Factors:
    """SoftHebb (Moraitis et al. 2022; anti-Hebbian losers as Journe et al. 2023): p = s, d = mean of s u.

    u (n, out) is the unit's linear response W x. s is the softmax of u over the units, with a minus sign for all but
    the strongest: dW_k = lr e s_k (x - u_k W_k). The weights of a winner converge to norm 1.

    negated: False for the first version (Moraitis et al. 2022), in which all units have the sign of the strongest.
    """
    s = torch.softmax(inverse_temperature * u, 1)
    if negated:
        winners = u.argmax(1, keepdim=True)
        s = s.neg().scatter_(1, winners, s.gather(1, winners))
    post = _weighted(s, event)
    return Factors(post, (post * u).mean(0))


def softhebb_rate(W: Tensor, power: float = 0.5) -> Tensor:
    """Return the factor (out,) of each unit's learning rate: | |w| - 1 |^power, 0 for converged weights.

    As in the published program (Journe et al. 2023), which applies it after `largest_entry_one`.
    """
    norms: Tensor = torch.linalg.vector_norm(W, dim=1)
    distance = (norms - 1).abs()
    return distance.sqrt() if power == 0.5 else distance.pow(power)


def largest_entry_one(change: Tensor) -> Tensor:
    """Return SoftHebb's weight change divided by its largest absolute entry; a change of all zeros stays zero.

    As in the published program (Journe et al. 2023), before the units' rates apply. Responses grow with the norm of the
    weights, which starts far above 1, and proportional steps would diverge.
    """
    return change / change.abs().max().clamp_min(torch.finfo(change.dtype).tiny)


def direct(modulation: Tensor, derivative: Tensor, event: Event = 1.0) -> Factors:
    """A rule with a third factor for each unit: p = m f'(z), no decay.

    modulation m (n, out); derivative f'(z) (n, out) of the activation function. With m = -error B^T and fixed random B
    (out, classes) it is direct feedback alignment (Nokland 2016), see `direct_feedback`.
    """
    return Factors(_weighted(modulation * derivative, event), None)


def direct_feedback(error: Tensor, B: Tensor) -> Tensor:
    """Return the modulation m = -error B^T (n, out) by fixed random feedback B (out, classes).

    error (n, classes): softmax of the readout minus the one-hot label.
    """
    return (-error) @ B.T


def surprise(signal: Tensor, mean: Tensor, deviation: Tensor, largest: float = 3.0) -> Tensor:
    """Return how many standard deviations a signal is above its mean, between 0 and `largest`."""
    return ((signal - mean) / deviation.clamp_min(torch.finfo(signal.dtype).tiny)).clamp(0.0, largest)


def event_probabilities(signals: Tensor, recent: Tensor, rate: float, uniform: float) -> Tensor:
    """Return the probability (n,) of an event for each signal: p_i = min(1, c s_i), with mean `rate` over `recent`.

    s_i = (1 - uniform) signal_i + uniform (mean of recent): the share `uniform` of the probability is the same for all
    stimuli, so that none is below uniform times rate (defensive mixture, Hesterberg 1995), as long as c s_i is below 1.
    signals (n,) and recent (m,): 0 or more. If all of them are 0, all probabilities are `rate`. With uniform = 0 the
    mean is lower if fewer than the share `rate` of recent are above 0.
    """
    mean = recent.mean()
    if not mean > 0:
        return torch.full_like(signals, rate)
    descending = ((1 - uniform) * recent + uniform * mean).sort(descending=True).values
    # With the k largest at probability 1, c follows from the rest. The smallest k that leaves no other above 1 is it.
    rest = descending.flip(0).cumsum(0).flip(0)
    number = torch.arange(len(descending), dtype=signals.dtype, device=signals.device)
    c = (rate * len(descending) - number) / rest.clamp_min(torch.finfo(signals.dtype).tiny)
    fits = c * descending <= 1
    # At rate 1 all of them are at 1. A signal of 0 then has an event too.
    if rate >= 1 or not bool(fits.any()):
        return torch.ones_like(signals)
    scale = c[fits.to(torch.uint8).argmax()]
    return (scale * ((1 - uniform) * signals + uniform * mean)).clamp(0, 1)


def importance(probabilities: Tensor, rate: float) -> Tensor:
    """Return the strength (n,) of an event that happens with these probabilities: e = rate / p (importance weight).

    The expected strength is `rate` for every stimulus, so the expected change of the weights is the rate times the
    change by an event for all stimuli. The variance is smallest for p proportional to the size of the change
    (Katharopoulos & Fleuret 2018). Stimuli of probability 0 have no event.
    """
    return torch.where(probabilities > 0, rate / probabilities, torch.zeros_like(probabilities))


def triangle(u: Tensor, power: float = 1.0) -> Tensor:
    """Return max(0, u - mean of u over units)^power (Coates et al. 2011; the power is from Journe et al. 2023).

    u (n, units, ...).
    """
    return to_power(torch.relu(u - u.mean(1, keepdim=True)), power)


def to_power(above: Tensor, power: float) -> Tensor:
    """Return above^power, for numbers of 0 or more."""
    return above if power == 1 else torch.pow(above, power)


def similarity(h: Tensor) -> Tensor:
    """Return the adjusted cosine similarity (n, n) of the rows of h (n, units): the cosine after centering each row.

    It depends neither on the scale nor on the mean of a row.
    """
    unit = functional.normalize(h - h.mean(1, keepdim=True), dim=1, eps=1e-8)
    return unit @ unit.T


def label_similarity(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return `similarity` of one-hot labels (n, n): 1 for one class, -1 / (classes - 1) for two classes. y (n,)."""
    same = (y[:, None] == y).to(dtype)
    return (classes * same - 1) / (classes - 1)


def similarity_loss(R: Tensor, target: Tensor, event: Event = 1.0) -> Tensor:
    """Return L_sim of equation (2), the mean over pairs of stimuli of (R - target)^2, times the event.

    R (n, n): `similarity` of a linear map of the layer's activity. target (n, n): that of the labels. With an event of
    each stimulus a pair weighs sqrt(e_i e_j), and the mean of the event is the factor. Stimuli without an event form no
    pairs.
    """
    squares = (R - target).square()
    if not isinstance(event, Tensor) or event.ndim == 0:
        return squares.mean() * event
    roots = event.sqrt()
    pairs = torch.outer(roots, roots)
    return event.mean() * (pairs * squares).sum() / pairs.sum().clamp_min(torch.finfo(R.dtype).tiny)


def prediction_loss(losses: Tensor, event: Event = 1.0) -> Tensor:
    """Return L_pred of equation (2), the mean over stimuli of event times loss.

    losses (n,): of the local classifier, a linear map of the layer's activity; the cross-entropy with the labels.
    """
    return (losses * event).mean()


def _weighted(values: Tensor, event: Event) -> Tensor:
    """Return values (n, out), each row multiplied by the event of its stimulus."""
    if isinstance(event, Tensor):
        return values * (event[:, None] if event.ndim == 1 else event)
    return values if event == 1 else values * event
