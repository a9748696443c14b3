"""GRLU as pure functions. The kernels are tested against them.

A network of L layers with sizes d_0, ..., d_L holds weights[l] of shape (d_{l+1}, d_l) and biases[l] of shape
(d_{l+1},). In the equations n_l is Gaussian noise that is already multiplied by its standard deviation sigma, and y is
the label.

    (1)  xhat_l = layer_norm(h_{l-1}),    h_{-1} = x
    (2)  z_l    = W_l xhat_l + b_l
    (3)  h_l    = relu(z_l) + n_l         hidden; m_l * z_l + n_l under a top-k mask m_l; z_l + n_l in the last layer
    (4)  r      = log softmax(h_{L-1})[y]
    (5)  d      = (r(+n) - r(-n)) / 2     both members of the pair share the masks
    (6)  dW_l   = mean over perturbations of (n_l d) outer xhat_l, summed over the batch;  db_l the same without xhat_l

xhat_l in (6) is the mean of the pair's two layer-normed inputs. The update is an ascent direction on r; it is neither
multiplied by the learning rate nor divided by sigma^2, so its expectation is about sigma^2 times a gradient.

The rule for any layer z = f(x, w), such as a convolution with its batch normalization, is the same with the layer's
exact derivative, for a loss l_b of each sample b, and with the sign of a gradient. P pairs, batch of B:

    (7)  z      = f(x, w) + n
    (8)  d_b    = (l_b(+n) - l_b(-n)) / 2
    (9)  c      = 1/(P B) sum over pairs of n d,       d = d_b of the sample b that an entry of z belongs to, or
                                                       sum over b of d_b for an entry that reaches several losses
    (10) grad w = (dz/dw)^T c                          at the x of a pass without noise

Each of (6) and (10) uses activity of its own layer alone. To leading order in sigma, the expectation of (10) is sigma^2
times the gradient of the mean loss, because E[n_i d] = sigma^2 dl/dz_i.

With rewards per group, the N units of all layers, the first layer's first, are divided into k groups of neighbors:
unit u belongs to group floor(u k / N). Each group is perturbed alone, and learns from the change of the reward under
its own noise:

    (11) n_g    = n at the units of group g, 0 at all others
    (12) d_g    = (r(+n_g) - r(-n_g)) / 2
    (13) dW_l   = mean over perturbations of the sum over g of (n_{l,g} d_g) outer xhat_{l,g};   db_l without xhat_{l,g}

xhat_{l,g} is the mean of the two inputs of group g's own pair. One group is (5) and (6); k groups take k times as many
passes. The expectation is the same, to leading order in sigma. Let G_i be the gradient with respect to z_i for one
image, and noise be added to z. Then the variance of db_i is sigma^4 / P (|G_g|^2 + G_i^2), where G_g is the gradient of
the units in the group of unit i. Its sum over units is (N + 1) |G|^2 sigma^4 / P for one group, and 2 |G|^2 sigma^4 / P
for groups of one unit. Rewards per group are not in the published program.

With learned feedback, `credit="learned"`, hidden units get noise before the nonlinearity, and the readout gets none.
The readout learns from its own error. Feedback weights B_l carry errors to the hidden layers. Below, z_l, xhat_l and
delta_l are those of a pass without noise, std_l is the standard deviation that divides in (1), and f' is the derivative
of ReLU:

    (14) delta_{L-1} = onehot(y) - softmax(z_{L-1})
    (15) delta_l = f'(z_l) * g_l,    g_l = N_{l+1}(B_l s_l)
         s_l     = delta_{L-1} with direct feedback, delta_{l+1} with feedback from layer to layer
         N_l(v)  = P_l(v) / std_l,   P_l(v) = v - mean(v) - xhat_l mean(v * xhat_l)
    (16) dW_l    = delta_l outer xhat_l, summed over the batch;  db_l the same without xhat_l
    (17) e       = d - sum over hidden layers of n_l . delta_l,    p = sum over hidden layers of |f'(z_l) * n_l|^2
    (18) D_l     = sum over pairs of e / p  std_{l+1} P_{l+1}(f'(z_l) * n_l) outer s_l / |s_l|^2
    (19) dB_l    = t D_l,    t = sum of e c / sum of c^2, between 0 and 1,    c = sum over hidden layers of
                   n_l . (f'(z_l) * N_{l+1}(D_l s_l)),    sums over all pairs of the batch

With a top-k mask f' is the mask. It is drawn in the pass without noise, and all passes of an image share it. With the
path "none" g_l is zero: hidden layers stay random.

N_l is the derivative of (1) and needs the activity of one layer. So (16) is the gradient if, from layer to layer, B_l
is the transpose of W_{l+1}. With residual connections and feedback from layer to layer, g_l also gets g_{l+1} if layer
l + 1 adds its input.

(18) is normalized least mean squares. The sum of n_l . delta_l is the change of the reward that the feedback predicts,
and e is the error of this prediction. D_l removes the error of a single pair, up to the part that P takes away, so t is
1. For several pairs c is what D_l adds to each prediction, and t minimizes the sum of squared errors. To leading order
in sigma, E[e n_l] is sigma^2 (G_l - delta_l), where G_l is the gradient with respect to z_l. So B_l is a regression of
n_l d / sigma^2, which estimates the gradient, on s_l. This is the method of Lansdell, Prakash and Kording, "Learning to
solve the credit assignment problem" (2019). They regress the estimate itself. To subtract the prediction is ours: it
changes no expectation, and the noise of the regression vanishes as the prediction becomes right. 1e-6 is added to
|s_l|^2, because d of an image that is already right is only rounding.

The next parts change which noise the units get, or the inputs of the layers. Every synapse still hears one scalar for
each perturbation. Each part may be left out, and they follow each other in this order. s > 0 and rho are constants:

    (20) n_l     = B_l n_{L-1} in hidden layers,    B_l ~ N(0, 1 / d_L), fixed
    (21) n_{L-1} is multiplied by s; dW_{L-1} and db_{L-1} in (6) are divided by s^2
    (22) n_l     = 0 in all layers but l = q mod L for perturbation number q, counted from the first step on;
                   dW_l and db_l in (6) are multiplied by L
    (22') n_l    = 0 in hidden layers: a control, in which they never learn
    (23) n_l     is multiplied by a_l in hidden layers,    a_l = 1 where z_l(+n) + z_l(-n) > 0, else 0;
                   z_l before its own noise
    (24) x*_l    = R_l xhat_l in the place of xhat_l in (2) and (6),    R_l = I before the first step
    (25) dR_l    = -rho (mean over images of x*_l outer x*_l, with a diagonal of zeros) R_l,    once for each block of
                   max(1, 64 // batch) steps, at the end; x*_l is the mean over the passes of an image. A last
                   batch that has fewer images is a block of its own

Let G be the gradient with respect to the z of all units, for one image and noise before the nonlinearity, and let the
noise be n = sigma S xi with independent xi ~ N(0, 1). To leading order, the expectation of the biases' update is
sigma^2 C G with C = S S^T. C has no negative eigenvalue, so this is an ascent direction. The variance, summed over
units, is sigma^4 / P (|S|^2 |S^T G|^2 + |C G|^2), where |S|^2 is the sum of squares. If N units have noise of their
own, S is the identity, and the ratio of signal to noise of one perturbation is 1 / (N + 1).

With (20), S has d_L columns. In wide networks these are nearly orthogonal and equally long, so the ratio is about 1 /
(d_L + 1). In return, hidden layers learn along B_l g alone, where g = S^T G is the error of the readout plus the sum of
B_m^T G_m over hidden layers m. This is random direct feedback of an error that noise estimates. The matrices B_l carry
the noise of the readout, and no error. Kang, Richards and Sabatini, "Credit assignment via neural manifold noise
correlation", arXiv 2601.02636, restrict noise to a few dimensions of activity; these random matrices are ours.

(21) and (22) do not change the expectation. With (21), layer m adds N_l |G_m|^2 s_m^2 / s_l^2 to the variance in layer
l. With (22), the noise of other layers does not disturb the estimate of a layer, which is made in one of L
perturbations. (23) changes the update of silent units alone. With noise before the nonlinearity, the expectation of
this update is zero to leading order, so that it is almost only noise.

(24) and (25) are from Dalm, van Gerven and Ahmad, "Effective learning with node perturbation in multi-layer neural
networks", arXiv 2310.00965. The weights that multiply xhat_l are W_l R_l. So (6) is dW_l = U R_l^T, where U is the
update (6) of a network without R_l and with these weights.

There is no baseline b, because pairs do not need one: (r(+n) - b) - (r(-n) - b) = r(+n) - r(-n). The update (r(+n) - b)
n of a single pass has the variance of a pair's update at best, with b = r(0), which is a second pass. With the mean of
past rewards for b, the variance of each unit is about sigma^2 E[(r - b)^2], which is larger than that of a pair,
sigma^4 |G|^2, by the factor E[(r - b)^2] / (sigma^2 |G|^2).

Equation numbers are ours. Source: README and code of https://github.com/steve-z-wang/grlu, whose rule is
`credit="output"`: noise after the nonlinearity. Its update has no factor f'(z), so silent ReLU units are updated too.
With `credit="preactivation"` the noise is added to z_l before the nonlinearity, which is node perturbation as
in the literature: to leading order in sigma its expectation is sigma^2 times the gradient. The README mentions skip
connections, but no published code has them. Ours, `skip=True`, are residual: a hidden layer after the first whose input
is as wide as its output adds that input, h_l = a_l + h_{l-1} + n_l, without n_l if the noise was added to z_l.

All functions support float32 and float64 on any device, and use no global random state.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Credit = Literal["output", "preactivation", "learned"]
Path = Literal["direct", "layer", "transposed", "none"]
Parameters = Sequence[Tensor]
Masks = Sequence[Tensor | None]

EPS = 1e-5
"""Added to the variance in layer norm, as in the published code."""
DAMPING = 1e-6
"""Added to |s_l|^2 in (18)."""


def layer_norm(x: Tensor) -> Tensor:
    """Standardize the last dimension of `x` (..., features), without scale and shift, eps 1e-5; equation (1)."""
    return functional.layer_norm(x, x.shape[-1:], eps=EPS)


def _hidden(z: Tensor, mask: Tensor | None) -> Tensor:
    return torch.relu(z) if mask is None else z * mask.to(z.dtype)


def _has_skip(weights: Parameters, layer: int, skip: bool) -> bool:
    rows, columns = weights[layer].shape
    return skip and 0 < layer < len(weights) - 1 and rows == columns


def _layer_output(
    weights: Parameters,
    layer: int,
    h: Tensor,
    z: Tensor,
    noise: Tensor | None,
    mask: Tensor | None,
    credit: str,
    skip: bool,
) -> Tensor:
    """Equation (3): the output of `layer` from its pre-activation `z` and its input `h`."""
    if noise is not None and credit == "preactivation":
        z = z + noise
    output = z if layer == len(weights) - 1 else _hidden(z, mask)
    if _has_skip(weights, layer, skip):
        output = output + h
    if noise is not None and credit == "output":
        output = output + noise
    return output


def _perturbations(noises: Sequence[Tensor] | None, x: Tensor) -> int:
    if noises is None:
        return 1
    perturbations, rest = divmod(len(noises[0]), len(x))
    if rest or not perturbations:
        raise ValueError(f"noises have {len(noises[0])} rows, which is not a multiple of the batch size {len(x)}")
    return perturbations


def _pass(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    noises: Sequence[Tensor] | None,
    masks: Masks | None,
    credit: str,
    skip: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """The layer-normed input and the output of every layer, equations (1) to (3)."""
    if credit not in ("output", "preactivation"):
        raise ValueError(f"credit must be 'output' or 'preactivation', not {credit!r}")
    h = x.repeat(_perturbations(noises, x), 1)
    normed, outputs = [], []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        xhat = layer_norm(h)
        z = functional.linear(xhat, weight, bias)
        mask = masks[layer] if masks is not None and layer < len(weights) - 1 else None
        h = _layer_output(weights, layer, h, z, None if noises is None else noises[layer], mask, credit, skip)
        normed.append(xhat)
        outputs.append(h)
    return normed, outputs


def forward(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    noises: Sequence[Tensor] | None = None,
    masks: Masks | None = None,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> Tensor:
    """Logits of the network; equations (1) to (3).

    `x` is (batch, d_0). `noises[l]`, one per layer, is (batch * perturbations, d_{l+1}), perturbation-major: row p *
    batch + b belongs to sample b, as when the batch is tiled; `x` is tiled to match. `masks[l]`, one per hidden layer,
    has as many rows as the noises, or as `x` without noise. It replaces ReLU in its layer; None keeps ReLU.

    Returns (batch * perturbations, d_L), or (batch, d_L) without noise. Raises ValueError for an unknown credit, or
    if the rows of the noises are not a multiple of the batch size.
    """
    return _pass(weights, biases, x, noises, masks, credit, skip)[1][-1]


def _log_probability(logits: Tensor, y: Tensor) -> Tensor:
    """Equation (4), per row."""
    labels = y.repeat(len(logits) // len(y))
    return torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


def grlu_update(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    y: Tensor,
    noises: Sequence[Tensor],
    masks: Masks | None = None,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """One step of the rule; equations (5) and (6).

    Shapes as in `forward`; `y` (batch,) holds the labels as integers. `noises` are already multiplied by sigma.

    Returns (weight_updates, bias_updates, reward): an ascent direction for each parameter, in its shape, not multiplied
    by the learning rate nor divided by sigma^2, averaged over perturbations and summed over the batch; and the 0-dim
    mean of (r(+n) + r(-n)) / 2 over rows.
    """
    perturbations = _perturbations(noises, x)
    plus_inputs, plus_outputs = _pass(weights, biases, x, noises, masks, credit, skip)
    minus_inputs, minus_outputs = _pass(weights, biases, x, [-noise for noise in noises], masks, credit, skip)
    plus, minus = _log_probability(plus_outputs[-1], y), _log_probability(minus_outputs[-1], y)
    difference = (plus - minus) / 2
    weight_updates, bias_updates = [], []
    for noise, plus_input, minus_input in zip(noises, plus_inputs, minus_inputs, strict=True):
        postsynaptic = noise * difference[:, None] / perturbations
        weight_updates.append(postsynaptic.T @ ((plus_input + minus_input) / 2))
        bias_updates.append(postsynaptic.sum(0))
    return weight_updates, bias_updates, ((plus + minus) / 2).mean()


def group_of_units(widths: Sequence[int], groups: int) -> list[Tensor]:
    """The group of each unit in rewards per group: a tensor (width,) for each layer of `widths`.

    Raises ValueError if there are more groups than units, or none.
    """
    units = sum(widths)
    if not 1 <= groups <= units:
        raise ValueError(f"groups must be between 1 and the number of units, {units}, not {groups}")
    return list((torch.arange(units) * groups // units).split(list(widths)))


def noise_of_groups(noises: Sequence[Tensor], batch: int, groups: int) -> list[Tensor]:
    """Equation (11): the noise of each group alone.

    `noises[l]` is (batch * perturbations, d_{l+1}). Returns (batch * perturbations * groups, d_{l+1}) for each layer:
    row (p * groups + g) * batch + b holds the noise of perturbation p and sample b at the units of group g.
    """
    members = group_of_units([noise.shape[1] for noise in noises], groups)
    alone = []
    for noise, member in zip(noises, members, strict=True):
        of_group = (member.to(noise.device) == torch.arange(groups, device=noise.device)[:, None]).to(noise.dtype)
        alone.append((noise.view(-1, 1, batch, len(member)) * of_group[:, None]).reshape(-1, len(member)))
    return alone


def update_of_groups(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    y: Tensor,
    noises: Sequence[Tensor],
    groups: int,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """One step of the rule with rewards per group; equations (11) to (13).

    Arguments and results are those of `grlu_update`, without masks. The reward is the mean over all passes.
    """
    alone = noise_of_groups(noises, len(x), groups)
    weight_updates, bias_updates, reward = grlu_update(weights, biases, x, y, alone, credit=credit, skip=skip)
    # The mean over perturbations and groups, times the number of groups: their sum.
    return [groups * update for update in weight_updates], [groups * update for update in bias_updates], reward


class NoiseForm(NamedTuple):
    """Which noise the units get: equations (20) to (23). The default is noise of its own in each unit.

    active_only: noise in active hidden units alone, (23). one_layer: one layer for each perturbation, (22).
    only_readout: noise in the readout alone, the control (22'). readout: s in (21).
    sources: B_l of each hidden layer in (20), or none. turn: the number of perturbations before this step.
    """

    active_only: bool = False
    one_layer: bool = False
    only_readout: bool = False
    readout: float = 1.0
    sources: Sequence[Tensor] = ()
    turn: int = 0


OWN_NOISE = NoiseForm()
"""Noise of its own in each unit, as published."""


def initial_sources(sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """B_l of equation (20) for each hidden layer, (d_{l+1}, d_L) each, on the generator's device."""
    return [
        torch.randn(width, sizes[-1], generator=generator, device=generator.device) / math.sqrt(sizes[-1])
        for width in sizes[1:-1]
    ]


def noise_of_form(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    noises: Sequence[Tensor],
    form: NoiseForm,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> list[Tensor]:
    """The noise of each layer, as in `forward`, from independent `noises`; equations (20) to (23).

    With sources, the last of `noises`, that of the readout, is used alone.
    """
    readout, layers = noises[-1], len(weights)
    hidden = [readout @ source.T for source in form.sources] if form.sources else noises[:-1]
    shaped = [*hidden, form.readout * readout]
    if form.one_layer:
        number = form.turn + torch.arange(len(readout), device=readout.device) // len(x)
        shaped = [noise * (number % layers == layer)[:, None] for layer, noise in enumerate(shaped)]
    if form.only_readout:
        shaped = [*(torch.zeros_like(noise) for noise in shaped[:-1]), shaped[-1]]
    if not form.active_only:
        return shaped
    plus = minus = x.repeat(_perturbations(noises, x), 1)
    for layer in range(layers - 1):
        z_plus = functional.linear(layer_norm(plus), weights[layer], biases[layer])
        z_minus = functional.linear(layer_norm(minus), weights[layer], biases[layer])
        shaped[layer] = shaped[layer] * (z_plus + z_minus > 0)
        plus = _layer_output(weights, layer, plus, z_plus, shaped[layer], None, credit, skip)
        minus = _layer_output(weights, layer, minus, z_minus, -shaped[layer], None, credit, skip)
    return shaped


Updates = tuple[list[Tensor], list[Tensor], Tensor]
"""The updates of the weights and of the biases, and the mean reward."""


def scaled_by_form(updates: Updates, form: NoiseForm) -> Updates:
    """The updates of `grlu_update` with noise of this form, times the factors of equations (21) and (22)."""
    weight_updates, bias_updates, reward = updates
    factors = [float(len(weight_updates)) if form.one_layer else 1.0] * len(weight_updates)
    factors[-1] /= form.readout**2
    return (
        [factor * update for factor, update in zip(factors, weight_updates, strict=True)],
        [factor * update for factor, update in zip(factors, bias_updates, strict=True)],
        reward,
    )


def update_of_form(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    y: Tensor,
    noises: Sequence[Tensor],
    form: NoiseForm,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> Updates:
    """One step of the rule with noise of this form; equations (20) to (23).

    Arguments and results are those of `grlu_update`, without masks; noises as in `noise_of_form`.
    """
    shaped = noise_of_form(weights, biases, x, noises, form, credit=credit, skip=skip)
    return scaled_by_form(grlu_update(weights, biases, x, y, shaped, credit=credit, skip=skip), form)


def decorrelated_weights(weights: Parameters, decorrelation: Parameters) -> list[Tensor]:
    """W_l R_l of each layer: the weights of a network without R_l that computes the same; equation (24)."""
    return [weight @ matrix for weight, matrix in zip(weights, decorrelation, strict=True)]


def decorrelated_updates(updates: Parameters, decorrelation: Parameters) -> list[Tensor]:
    """dW_l of each layer from the updates at the weights W_l R_l; equation (24)."""
    return [update @ matrix.T for update, matrix in zip(updates, decorrelation, strict=True)]


def mean_inputs(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    noises: Sequence[Tensor],
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> list[Tensor]:
    """xhat_l of each layer, the mean over the passes of each image: (batch, d_l) each. Arguments as in `forward`."""
    batch = len(x)
    both = [_pass(weights, biases, x, [sign * noise for noise in noises], None, credit, skip)[0] for sign in (1, -1)]
    return [((plus + minus) / 2).view(-1, batch, plus.shape[1]).mean(0) for plus, minus in zip(*both, strict=True)]


def decorrelation_update(decorrelation: Tensor, inputs: Tensor) -> Tensor:
    """Equation (25) for rho = 1: the change of R_l (d_l, d_l) by x*_l of the images of a block, (images, d_l)."""
    correlation = inputs.T @ inputs / len(inputs)
    return -(correlation - correlation.diag().diag()) @ decorrelation


def antithetic_difference(plus: Tensor, minus: Tensor) -> Tensor:
    """Equation (8): half the difference of the losses of a pair."""
    return (plus - minus) / 2


def add_credit(total: Tensor, noise: Tensor, difference: Tensor, sample: Tensor | None) -> None:
    """Add the terms of equation (9), without 1/P, of several pairs to `total`, in the shape of z.

    noise (pairs, *z), difference (pairs, batch). sample: the sample of each entry of z, in a shape that broadcasts to
    z; None if an entry reaches all losses.
    """
    batch = difference.shape[1]
    of_entry = difference.sum(1).view(-1, *[1] * total.ndim) if sample is None else difference[:, sample]
    factor = of_entry / batch
    if len(noise) == 1:
        total.addcmul_(noise[0], factor[0])
    else:
        total.add_((noise * factor).sum(0))


def shapes_of_feedback(sizes: Sequence[int], path: Path) -> list[tuple[int, int]]:
    """The shape of the feedback B_l of each hidden layer, for sizes d_0, ..., d_L.

    It is (d_{l+1}, d_L) with direct feedback, and (d_{l+1}, d_{l+2}) from layer to layer. The paths "transposed" and
    "none" have no feedback of their own.
    """
    if path in ("transposed", "none"):
        return []
    if path == "direct":
        return [(width, sizes[-1]) for width in sizes[1:-1]]
    return list(pairwise(sizes[1:]))


def initial_feedback(sizes: Sequence[int], path: Path, generator: torch.Generator) -> list[Tensor]:
    """Random feedback of each hidden layer: B_l ~ N(0, 2 / d_{l+1}), on the generator's device.

    This is how the weights begin that B_l is the transpose of, those between hidden layers and the readout.
    """
    return [
        torch.randn(shape, generator=generator, device=generator.device) * math.sqrt(2 / shape[0])
        for shape in shapes_of_feedback(sizes, path)
    ]


def transposed_weights(weights: Parameters, path: Path) -> list[Tensor]:
    """What the feedback B_l of each hidden layer stands for, in its shape.

    From layer to layer, and with the path "transposed", this is the transpose of W_{l+1}, with which (16) is the
    gradient. With direct feedback it is the transpose of the product of the weights from the layer to the readout,
    which leaves out the nonlinearities.
    """
    if path != "direct":
        return [weight.T for weight in weights[1:]]
    products = [weights[-1].T]
    for weight in reversed(weights[1:-1]):
        products.insert(0, weight.T @ products[0])
    return products[: len(weights) - 1]


def without_unused(feedback: Tensor, *, of_error: bool) -> Tensor:
    """The part of a feedback matrix that has an effect, in its shape.

    The norm removes the mean over units (rows). If the matrix carries the error of the readout, which sums to zero, the
    mean over outputs (columns) has no effect either. Neither part can be learned.
    """
    used = feedback - feedback.mean(0)
    return used - used.mean(1, keepdim=True) if of_error else used


def _project(v: Tensor, xhat: Tensor) -> Tensor:
    """P(v) of equation (15), per row."""
    return v - v.mean(1, keepdim=True) - xhat * (v * xhat).mean(1, keepdim=True)


def _deviation(h: Tensor) -> Tensor:
    """The standard deviation (rows, 1) that divides in equation (1)."""
    return (h.var(1, correction=0, keepdim=True) + EPS).sqrt()


class Signals(NamedTuple):
    """What the layers learn from in a pass without noise, for each sample; equations (14) to (16).

    deltas: delta_l of each layer, (batch, d_{l+1}) each. normed: xhat_l of each layer. active: f'(z_l), and deviations:
    std_{l+1} (batch, 1), both of each hidden layer l.
    """

    deltas: list[Tensor]
    normed: list[Tensor]
    active: list[Tensor]
    deviations: list[Tensor]

    def updates(self) -> tuple[list[Tensor], list[Tensor]]:
        """Equation (16): the updates of the weights and of the biases of each layer, summed over the batch."""
        pairs = zip(self.deltas, self.normed, strict=True)
        return [delta.T @ xhat for delta, xhat in pairs], [delta.sum(0) for delta in self.deltas]


def signals(
    weights: Parameters,
    biases: Parameters,
    feedback: Parameters,
    x: Tensor,
    y: Tensor,
    masks: Sequence[Tensor] | None = None,
    *,
    path: Path = "direct",
    skip: bool = False,
) -> Signals:
    """What each layer learns from, by the feedback B_l `feedback[l]` of each hidden layer; equations (14) to (16).

    Shapes as in `initial_feedback`; `x` is (batch, d_0) and `y` (batch,) holds the labels. `masks`, one per hidden
    layer, are as in `forward`; f' is then the mask. With the path "transposed" the transposed weights are the feedback,
    from layer to layer: the gradient. With the path "none" the signals of hidden layers are zero.
    """
    if path == "transposed":
        feedback, path = transposed_weights(weights, path), "layer"
    normed, outputs = _pass(weights, biases, x, None, masks, "preactivation", skip)
    pairs = zip(normed[:-1], weights, biases, strict=False)
    if masks is None:
        active = [(functional.linear(xhat, weight, bias) > 0).to(x.dtype) for xhat, weight, bias in pairs]
    else:
        active = [mask.to(x.dtype) for mask in masks]
    deviations = [_deviation(h) for h in outputs[:-1]]
    error = functional.one_hot(y, outputs[-1].shape[1]) - outputs[-1].softmax(1)
    if path == "none":
        return Signals([*(torch.zeros_like(h) for h in outputs[:-1]), error], normed, active, deviations)
    deltas, arrived = [error], torch.zeros_like(error)
    for layer in reversed(range(len(feedback))):
        sent = error if path == "direct" else deltas[0]
        through = _project(sent @ feedback[layer].T, normed[layer + 1]) / deviations[layer]
        arrived = through + arrived if path == "layer" and _has_skip(weights, layer + 1, skip) else through
        deltas.insert(0, active[layer] * arrived)
    return Signals(deltas, normed, active, deviations)


def feedback_update(found: Signals, noises: Sequence[Tensor], change: Tensor, *, path: Path = "direct") -> list[Tensor]:
    """The update of the feedback of each hidden layer, for a rate of one; equations (17) to (19).

    `noises[l]`, one per hidden layer, is as in `forward`, and `change` (batch * perturbations,) is d of each row. A row
    without noise at any active unit has no part in it.
    """
    batch = len(found.deltas[0])
    heard = [noise.view(-1, batch, noise.shape[1]) * part for noise, part in zip(noises, found.active, strict=True)]
    error = change.view(-1, batch).clone()
    power = torch.zeros_like(error)
    for part, delta in zip(heard, found.deltas, strict=False):
        error -= (part * delta).sum(2)
        power += part.square().sum(2)
    error = torch.where(power > 0, error, 0)
    relative = error / torch.where(power > 0, power, 1)
    directions, predicted = [], torch.zeros_like(error)
    for layer, part in enumerate(heard):
        sent = found.deltas[-1] if path == "direct" else found.deltas[layer + 1]
        taught = found.deviations[layer] * _project((relative[:, :, None] * part).sum(0), found.normed[layer + 1])
        direction = taught.T @ (sent / (sent.square().sum(1, keepdim=True) + DAMPING))
        directions.append(direction)
        through = _project(sent @ direction.T, found.normed[layer + 1]) / found.deviations[layer]
        predicted += (part * through).sum(2)
    square = predicted.square().sum()
    step = torch.where(square > 0, (error * predicted).sum() / square, 0).clamp(0, 1)
    return [step * direction for direction in directions]


class Draws(NamedTuple):
    """What is drawn for a step of learned feedback.

    noises: one per hidden layer, as in `forward`, already multiplied by sigma. masks: (batch, d_{l+1}), one per hidden
    layer, in place of ReLU; all passes of an image share them. None for ReLU.
    """

    noises: Sequence[Tensor]
    masks: Sequence[Tensor] | None = None


def learned_update(
    weights: Parameters,
    biases: Parameters,
    feedback: Parameters,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    path: Path = "direct",
    skip: bool = False,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """One step of the rule with learned feedback; equations (14) to (19).

    The paths "transposed" and "none" need no noise.

    Returns (weight_updates, bias_updates, feedback_updates, reward). The first two estimate the gradient of log p(y |
    x), summed over the batch: unlike those of `grlu_update` they have no factor sigma^2. feedback_updates are those for
    a rate of one. The reward is the 0-dim mean of (r(+n) + r(-n)) / 2 over rows, and of r without noise.
    """
    noises, masks = draws
    found = signals(weights, biases, feedback, x, y, masks, path=path, skip=skip)
    if not noises or path in ("transposed", "none"):
        return *found.updates(), [], _log_probability(forward(weights, biases, x, masks=masks, skip=skip), y).mean()
    silent = x.new_zeros(len(noises[0]), len(biases[-1]))
    of_pairs = None if masks is None else [mask.repeat(len(silent) // len(x), 1) for mask in masks]
    plus, minus = (
        _log_probability(
            forward(
                weights,
                biases,
                x,
                [*(sign * noise for noise in noises), silent],
                of_pairs,
                credit="preactivation",
                skip=skip,
            ),
            y,
        )
        for sign in (1, -1)
    )
    updates = feedback_update(found, noises, (plus - minus) / 2, path=path)
    return *found.updates(), updates, ((plus + minus) / 2).mean()


def kept_units(width: int, k: float) -> int:
    """The number of units that a top-k mask keeps of `width`: k * width rounded, at least one."""
    return min(width, max(1, math.floor(k * width + 0.5)))


def top_k_mask(z: Tensor, k: float) -> Tensor:
    """The hard mask for evaluation: 1 for the largest fraction `k` in each row of `z` (rows, units), else 0."""
    kept = torch.topk(z, kept_units(z.shape[-1], k), dim=-1).indices
    return torch.zeros_like(z).scatter_(-1, kept, 1)


def gumbel_top_k_mask(
    z: Tensor, k: float, generator: torch.Generator | None = None, *, gumbel: Tensor | None = None
) -> Tensor:
    """The mask during learning: the top k of z + G, with G standard Gumbel noise.

    This draws units without replacement with probabilities softmax(z).

    `z` is (rows, units). `gumbel`, of the same shape, is the noise; without it, `generator` draws it.
    """
    if gumbel is None:
        gumbel = -torch.empty_like(z).exponential_(generator=generator).log()
    return top_k_mask(z + gumbel, k)


def pair_masks(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    noises: Sequence[Tensor],
    gumbels: Sequence[Tensor],
    k: float,
    *,
    credit: Credit = "output",
    skip: bool = False,
) -> list[Tensor]:
    """The top-k masks, one per hidden layer, that both members of an antithetic pair share.

    The mask of a hidden layer is the top k of (z(+n) + z(-n)) / 2 + G with one Gumbel draw `gumbels[l]`, shaped as the
    noise of the layer. In the first layer the mean equals the noise-free z. In deeper layers it treats both members
    alike without another forward pass; this is our choice, since the published code has one hidden layer.
    """
    plus = minus = x.repeat(_perturbations(noises, x), 1)
    masks: list[Tensor] = []
    for layer, gumbel in enumerate(gumbels):
        z_plus = functional.linear(layer_norm(plus), weights[layer], biases[layer])
        z_minus = functional.linear(layer_norm(minus), weights[layer], biases[layer])
        mask = gumbel_top_k_mask((z_plus + z_minus) / 2, k, gumbel=gumbel)
        masks.append(mask)
        plus = _layer_output(weights, layer, plus, z_plus, noises[layer], mask, credit, skip)
        minus = _layer_output(weights, layer, minus, z_minus, -noises[layer], mask, credit, skip)
    return masks


def _evaluation_masks(
    weights: Parameters, biases: Parameters, x: Tensor, top_k: float | None, skip: bool
) -> list[Tensor] | None:
    if top_k is None:
        return None
    h, masks = x, []
    for layer in range(len(weights) - 1):
        z = functional.linear(layer_norm(h), weights[layer], biases[layer])
        masks.append(top_k_mask(z, top_k))
        h = _layer_output(weights, layer, h, z, None, masks[-1], "output", skip)
    return masks


def predict(
    weights: Parameters, biases: Parameters, x: Tensor, *, top_k: float | None = None, skip: bool = False
) -> Tensor:
    """Noise-free logits (batch, d_L) of `x` (batch, d_0), with ReLU or, given `top_k`, with the hard top-k mask."""
    return forward(weights, biases, x, masks=_evaluation_masks(weights, biases, x, top_k, skip), skip=skip)


def features(
    weights: Parameters, biases: Parameters, x: Tensor, *, top_k: float | None = None, skip: bool = False
) -> list[Tensor]:
    """Noise-free hidden activations of `x` (batch, d_0) as in `predict`: a (batch, d_l) tensor per hidden layer."""
    masks = _evaluation_masks(weights, biases, x, top_k, skip)
    return _pass(weights, biases, x, None, masks, "output", skip)[1][:-1]


def gradient_update(
    weights: Parameters,
    biases: Parameters,
    x: Tensor,
    y: Tensor,
    masks: Masks | None = None,
    *,
    skip: bool = False,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The true gradient of log p(y | x) summed over the batch, by automatic differentiation: a reference for updates.

    The sign is that of `grlu_update` (ascent). Returns (weight_updates, bias_updates, reward), where the reward is the
    0-dim mean of log p(y | x) over the batch. `masks` as in `forward` without noise, held constant.
    """
    with torch.enable_grad():
        parameters = [parameter.detach().requires_grad_() for parameter in (*weights, *biases)]
        layers = len(weights)
        rewards = _log_probability(forward(parameters[:layers], parameters[layers:], x, masks=masks, skip=skip), y)
        gradients = torch.autograd.grad(rewards.sum(), parameters)
    return list(gradients[:layers]), list(gradients[layers:]), rewards.detach().mean()


def cosine(maximum: float, minimum: float, progress: float) -> float:
    """Half a cosine from `maximum` at progress 0 to `minimum` at 1: the schedule of sigma and the learning rate."""
    return minimum + (maximum - minimum) * (1 + math.cos(math.pi * progress)) / 2


def initial_parameters(
    sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], list[Tensor]]:
    """He normal initialization for sizes d_0, ..., d_L: W_l ~ N(0, 2 / d_l), b_l = 0, on the generator's device."""
    device = generator.device
    weights = [
        torch.randn(rows, columns, generator=generator, dtype=dtype, device=device) * math.sqrt(2 / columns)
        for columns, rows in pairwise(sizes)
    ]
    return weights, [torch.zeros(rows, dtype=dtype, device=device) for rows in sizes[1:]]
