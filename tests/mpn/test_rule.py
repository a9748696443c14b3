"""The equations of rule.py against loops over single numbers, and their properties."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plastic_mpn import rule

FUNCTIONS = {
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "linear": lambda a: a,
}
PLASTICITIES = ["hebbian", "pre", "post"]
INTERACTIONS = ["multiplicative", "additive"]
VARIANTS = list(itertools.product(FUNCTIONS, PLASTICITIES, INTERACTIONS))


def loop_step(x, M, W, b, eta, lambda_, activation, plasticity, interaction, bound=math.inf):
    """One sample's (h_t, M_t), number by number: x (d,), M and W (n, d), b (n,)."""
    units, inputs = len(W), len(x)
    h = []
    for i in range(units):
        a = float(b[i])
        for j in range(inputs):
            weight = W[i][j] * (M[i][j] + 1) if interaction == "multiplicative" else W[i][j] + M[i][j]
            a += float(weight) * float(x[j])
        h.append(FUNCTIONS[activation](a))
    new = [[0.0] * inputs for _ in range(units)]
    for i, j in itertools.product(range(units), range(inputs)):
        associated = {
            "hebbian": h[i] * float(x[j]),
            "pre": float(x[j]) / math.sqrt(units),
            "post": h[i] / math.sqrt(inputs),
        }[plasticity]
        new[i][j] = min(max(lambda_ * float(M[i][j]) + eta * associated, -bound), bound)
    return h, new


numbers = st.floats(-3, 3)


@st.composite
def layers(draw):
    """Draw (x, M, W, b, eta, lambda) of a batch: float64 arrays and two numbers."""
    batch, units, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shapes = (batch, inputs), (batch, units, inputs), (units, inputs), (units,)
    drawn = [draw(arrays(np.float64, shape, elements=numbers)) for shape in shapes]
    return (*drawn, draw(st.floats(-2, 2)), draw(st.floats(0, 1)))


def tensors(*values):
    return [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values]


def random_layer(seed=0, batch=3, units=4, inputs=3):
    """(x, M, W, b), float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, inputs), (batch, units, inputs), (units, inputs), (units,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def run(inputs, M, W, b, eta, lambda_, **variant):
    """The activities (T, B, n) and the modulations (B, n, d) after the inputs (T, B, d)."""
    activities = []
    for x in inputs:
        h, M = rule.step(x, M, W, b, eta, lambda_, rule.Variant(**variant))
        activities.append(h)
    return torch.stack(activities), M


def close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


# ----------------------------------------------------------------------------------------- against loops over numbers


@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
@settings(max_examples=25, deadline=None)
@given(layer=layers(), bound=st.sampled_from([math.inf, 1.0, 0.1]))
def test_a_step_equals_a_loop_over_numbers(activation, plasticity, interaction, layer, bound):
    variant = {"activation": activation, "plasticity": plasticity, "interaction": interaction, "bound": bound}
    h, M = rule.step(*tensors(*layer), rule.Variant(**variant))
    x, before, W, b, eta, lambda_ = layer
    for sample in range(len(x)):
        loop_h, loop_M = loop_step(x[sample], before[sample], W, b, eta, lambda_, **variant)
        np.testing.assert_allclose(h[sample], loop_h, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(M[sample], loop_M, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("interaction", INTERACTIONS)
@settings(max_examples=25, deadline=None)
@given(layer=layers())
def test_the_preactivation_equals_a_loop_with_and_without_a_bias(interaction, layer):
    x, M, W, b, *_ = layer
    for bias in (b, None):
        found = rule.preactivation(*tensors(x, M, W), *tensors(bias), interaction)
        zeros = np.zeros(len(W))
        for sample in range(len(x)):
            wanted, _ = loop_step(
                x[sample], M[sample], W, zeros if bias is None else bias, 0.0, 1.0, "linear", "hebbian", interaction
            )
            np.testing.assert_allclose(found[sample], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plasticity", PLASTICITIES)
@settings(max_examples=25, deadline=None)
@given(layer=layers())
def test_the_modulation_update_uses_the_given_activity(plasticity, layer):
    """The update alone: h may be any activity."""
    x, M, W, _, eta, lambda_ = layer
    h = np.sin(np.arange(len(x) * len(W), dtype=np.float64)).reshape(len(x), len(W))
    found = rule.modulation_update(*tensors(M, h, x), eta, lambda_, plasticity)
    association = rule.association(*tensors(h, x), plasticity)
    assert found.shape == association.shape == M.shape
    for sample, i, j in np.ndindex(*M.shape):
        wanted = {
            "hebbian": h[sample, i] * x[sample, j],
            "pre": x[sample, j] / math.sqrt(len(W)),
            "post": h[sample, i] / math.sqrt(x.shape[1]),
        }[plasticity]
        assert float(association[sample, i, j]) == pytest.approx(wanted, abs=1e-12)
        assert float(found[sample, i, j]) == pytest.approx(lambda_ * M[sample, i, j] + eta * wanted, abs=1e-12)


@pytest.mark.parametrize("activation", FUNCTIONS)
@settings(max_examples=40, deadline=None)
@given(a=st.floats(-5, 5))
def test_activation_and_slope(activation, a):
    f = FUNCTIONS[activation]
    h = rule.activate(torch.tensor(a, dtype=torch.float64), activation)
    assert float(h) == pytest.approx(f(a), abs=1e-14)
    step = 1e-5
    if activation != "relu" or abs(a) > step:
        difference = (f(a + step) - f(a - step)) / (2 * step)
        assert float(rule.slope(h, activation)) == pytest.approx(difference, abs=1e-8)


def test_the_slope_of_relu_is_zero_at_zero():
    assert float(rule.slope(torch.zeros(()), "relu")) == 0


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_types_are_kept(activation):
    for dtype in (torch.float32, torch.float64):
        x, M, W, b = (part.to(dtype) for part in random_layer())
        h, new = rule.step(x, M, W, b, 0.1, 0.9, rule.Variant(activation=activation))
        assert h.dtype == new.dtype == rule.slope(h, activation).dtype == dtype


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_without_plasticity_it_is_a_feedforward_layer(activation, plasticity, interaction):
    x, M, W, b = random_layer()
    inputs = torch.stack([x, 2 * x, x.flip(0)])
    h, after = run(
        inputs, torch.zeros_like(M), W, b, 0.0, 0.9,
        activation=activation, plasticity=plasticity, interaction=interaction,
    )  # fmt: skip
    assert not after.any()
    for step, seen in enumerate(inputs):
        for sample in range(len(seen)):
            wanted = [
                FUNCTIONS[activation](float(b[i]) + sum(float(W[i, j] * seen[sample, j]) for j in range(W.shape[1])))
                for i in range(len(W))
            ]
            np.testing.assert_allclose(h[step, sample], wanted, rtol=1e-12)


@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_the_first_step_of_an_episode_does_not_depend_on_eta(activation, plasticity, interaction):
    x, M, W, b = random_layer()
    variant = {"activation": activation, "plasticity": plasticity, "interaction": interaction}
    plain, _ = rule.step(x, torch.zeros_like(M), W, b, 0.0, 0.9, rule.Variant(**variant))
    eager, after = rule.step(x, torch.zeros_like(M), W, b, 1.7, 0.9, rule.Variant(**variant))
    close(eager, plain)
    assert after.any()


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_with_lambda_0_only_the_last_step_is_remembered(interaction):
    x, M, W, b = random_layer()
    h, after = rule.step(x, M, W, b, 0.3, 0.0, rule.Variant(interaction=interaction))
    for sample in range(len(x)):
        np.testing.assert_allclose(after[sample], 0.3 * np.outer(h[sample], x[sample]), rtol=1e-12)
    # M of pre depends on the input alone: whatever came before is gone.
    others = [
        rule.step(x, past, W, b, 0.3, 0.0, rule.Variant(plasticity="pre", interaction=interaction))[1]
        for past in (M, -5 * M)
    ]
    close(others[0], others[1])
    kept = [
        rule.step(x, past, W, b, 0.3, 0.5, rule.Variant(plasticity="pre", interaction=interaction))[1]
        for past in (M, -5 * M)
    ]
    assert not torch.allclose(kept[0], kept[1])


def test_without_input_the_modulations_decay_geometrically():
    x, M, W, b = random_layer()
    silence = torch.zeros(7, *x.shape, dtype=x.dtype)
    for plasticity in ("hebbian", "pre"):
        h, after = run(silence, M, W, b, 0.3, 0.8, plasticity=plasticity)
        close(after, 0.8**7 * M)
        close(h, torch.tanh(b).expand_as(h))


def test_a_constant_input_adds_up_to_a_geometric_series():
    x, M, W, b = random_layer()
    _, after = run(x.expand(9, -1, -1), torch.zeros_like(M), W, b, 0.3, 0.8, plasticity="pre")
    total = 0.3 * (1 - 0.8**9) / (1 - 0.8) / math.sqrt(len(W))
    close(after, (total * x).unsqueeze(1).expand_as(M))


def test_additive_modulations_recall_what_they_stored():
    """With W = 0 and f linear, M x_1 = eta h_1 |x_1|^2: the activity is recalled, scaled by the input."""
    x, M, W, b = random_layer()
    variant = {"activation": "linear", "interaction": "additive"}
    nothing = torch.zeros_like(W)
    h, stored = rule.step(x, torch.zeros_like(M), nothing, b, 0.3, 0.9, rule.Variant(**variant))
    close(h, b.expand_as(h))
    recalled, _ = rule.step(x, stored, nothing, torch.zeros_like(b), 0.3, 0.9, rule.Variant(**variant))
    close(recalled, 0.3 * h * (x * x).sum(1, keepdim=True))


# ----------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("activation", ["tanh", "linear"])
@settings(max_examples=15, deadline=None)
@given(layer=layers())
def test_without_a_bias_negating_the_input_negates_the_activity(activation, interaction, layer):
    x, M, W, _, eta, lambda_ = tensors(*layer)
    variant = {"activation": activation, "interaction": interaction}
    h, after = run(torch.stack([x, x / 2]), M, W, None, eta, lambda_, **variant)
    flipped_h, flipped_after = run(torch.stack([-x, -x / 2]), M, W, None, eta, lambda_, **variant)
    close(flipped_h, -h)
    close(flipped_after, after)


@settings(max_examples=15, deadline=None)
@given(layer=layers(), scale=st.floats(0.25, 4))
def test_units_of_the_input_do_not_matter(layer, scale):
    """x -> c x, W -> W / c and eta -> eta / c leave h and M alone, where M scales the weights."""
    x, M, W, b, eta, lambda_ = tensors(*layer)
    h, after = run(torch.stack([x, x / 2]), M, W, b, eta, lambda_)
    scaled_h, scaled_after = run(scale * torch.stack([x, x / 2]), M, W / scale, b, eta / scale, lambda_)
    close(scaled_h, h, 1e-9)
    close(scaled_after, after, 1e-9)


@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_permuting_units_and_inputs_permutes_the_result(activation, plasticity, interaction):
    x, M, W, b = random_layer()
    variant = {"activation": activation, "plasticity": plasticity, "interaction": interaction}
    units, inputs = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    seen = torch.stack([x, x.flip(0)])
    h, after = run(seen, M, W, b, 0.3, 0.9, **variant)
    other_h, other_after = run(
        seen[..., inputs], M[:, units][..., inputs], W[units][:, inputs], b[units], 0.3, 0.9, **variant
    )
    close(other_h, h[..., units])
    close(other_after, after[:, units][..., inputs])


@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_samples_are_independent(activation, plasticity, interaction):
    x, M, W, b = random_layer()
    variant = {"activation": activation, "plasticity": plasticity, "interaction": interaction}
    h, after = rule.step(x, M, W, b, 0.3, 0.9, rule.Variant(**variant))
    for sample in range(len(x)):
        alone = slice(sample, sample + 1)
        alone_h, alone_after = rule.step(x[alone], M[alone], W, b, 0.3, 0.9, rule.Variant(**variant))
        close(alone_h, h[alone])
        close(alone_after, after[alone])


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("plasticity", PLASTICITIES)
def test_a_different_one_hot_input_cannot_read_the_modulations(plasticity, interaction):
    # x_s and x_t have no entry in common: why a network with x^T in its update cannot be trained on such inputs.
    W, b = random_layer()[2:4]
    inputs = torch.eye(3, dtype=W.dtype)
    answers = []
    for order in ([0, 0, 1, 2], [1, 0, 1, 2]):
        M = W.new_zeros(1, *W.shape)
        for index in order:
            h, M = rule.step(
                inputs[index][None], M, W, b, 0.7, 0.9, rule.Variant(plasticity=plasticity, interaction=interaction)
            )
        answers.append(h)
    assert torch.equal(*answers) == (plasticity != "post")
