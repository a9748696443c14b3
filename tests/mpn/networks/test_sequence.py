"""The compiled sequence against single steps: values, gradients, and arguments that must not change."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from plastic_mpn.networks.sequence import mpn_sequence, mpn_sequence_by_steps
from plastic_mpn.rule import Variant

ACTIVATIONS = ["tanh", "relu", "sigmoid", "linear"]
PLASTICITIES = ["hebbian", "pre", "post"]
INTERACTIONS = ["multiplicative", "additive"]
VARIANTS = list(itertools.product(ACTIVATIONS, PLASTICITIES, INTERACTIONS))
NAMES = ("x", "M", "W", "b", "eta", "lambda_")
# Values and gradients add up over the steps, so that the tolerance is that of a sum of a few hundred terms.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-4}


def problem(time=6, batch=3, units=5, inputs=4, *, dtype=torch.float64, seed=0):
    """The arguments of a sequence, by name; about a fifth of the steps begin an episode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    parts = {
        "x": normal(time, batch, inputs),
        "M": normal(batch, units, inputs),
        "W": normal(units, inputs),
        "b": normal(units),
        "eta": torch.tensor(0.3, dtype=dtype),
        "lambda_": torch.tensor(0.8, dtype=dtype),
    }
    return parts, torch.rand(time, batch, generator=generator) < 0.2


def result_and_gradients(function, parts, starts, **variant):
    """(h, M) and the gradients of a random projection of both to every part, by name."""
    leaves = {name: part.detach().clone().requires_grad_() for name, part in parts.items()}
    h, M = function(
        *(leaves[name] for name in ("x", "M")), starts, *(leaves[name] for name in NAMES[2:]), Variant(**variant)
    )
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.dtype) for part in (h, M)]
    ((h * weights[0]).sum() + (M * weights[1]).sum()).backward()
    return (h.detach(), M.detach()), {name: leaf.grad for name, leaf in leaves.items()}


def check_equal(parts, starts, **variant):
    tolerance = TOLERANCES[parts["x"].dtype]
    (h, M), gradients = result_and_gradients(mpn_sequence, parts, starts, **variant)
    (wanted_h, wanted_M), wanted = result_and_gradients(mpn_sequence_by_steps, parts, starts, **variant)
    torch.testing.assert_close(h, wanted_h, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(M, wanted_M, rtol=tolerance, atol=tolerance)
    for name in NAMES:
        # Where nothing depends on a part, torch leaves the gradient out and the kernels leave zeros.
        expected = torch.zeros_like(parts[name]) if wanted[name] is None else wanted[name]
        torch.testing.assert_close(gradients[name], expected, rtol=tolerance, atol=tolerance, msg=f"gradient of {name}")


# --------------------------------------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_the_sequence_equals_single_steps(activation, plasticity, interaction, dtype):
    parts, starts = problem(dtype=dtype)
    assert starts[1:].any()
    check_equal(parts, starts, activation=activation, plasticity=plasticity, interaction=interaction)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("plasticity", PLASTICITIES)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_the_sequence_equals_single_steps_with_a_bound(plasticity, interaction, dtype):
    parts, starts = problem(time=9, dtype=dtype)
    check_equal(parts, starts, plasticity=plasticity, interaction=interaction, bound=0.2)
    _, M = mpn_sequence(parts["x"], parts["M"], starts, *(parts[name] for name in NAMES[2:]), Variant(bound=0.2))
    assert float(M.abs().max()) == pytest.approx(0.2)
    assert (M.abs() < 0.19).any()
    far = result_and_gradients(mpn_sequence, parts, starts, plasticity=plasticity, bound=1e6)
    none = result_and_gradients(mpn_sequence, parts, starts, plasticity=plasticity)
    torch.testing.assert_close(far, none, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    time=st.integers(1, 7),
    batch=st.integers(1, 4),
    units=st.integers(1, 9),
    inputs=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    variant=st.sampled_from(VARIANTS),
)
def test_the_sequence_equals_single_steps_for_every_size(time, batch, units, inputs, seed, variant):
    parts, starts = problem(time, batch, units, inputs, seed=seed)
    check_equal(parts, starts, **dict(zip(("activation", "plasticity", "interaction"), variant, strict=True)))


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("gradient", [False, True])
def test_blocks_of_samples_do_not_change_the_result(block, gradient, monkeypatch):
    parts, starts = problem(batch=7)
    others = [parts[name] for name in NAMES[2:]]
    wanted = mpn_sequence_by_steps(parts["x"], parts["M"], starts, *others)
    monkeypatch.setattr("plastic_mpn.networks.sequence.CACHED_MODULATIONS", block * 5 * 4)
    if gradient:
        check_equal(parts, starts)
    found = mpn_sequence(parts["x"], parts["M"], starts, *others)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plasticity", PLASTICITIES)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_without_starts_nothing_is_reset(plasticity, interaction):
    parts, starts = problem()
    check_equal(parts, None, plasticity=plasticity, interaction=interaction)
    never = result_and_gradients(mpn_sequence, parts, torch.zeros_like(starts), plasticity=plasticity)
    none = result_and_gradients(mpn_sequence, parts, None, plasticity=plasticity)
    torch.testing.assert_close(none, never, rtol=0, atol=0)


@pytest.mark.parametrize("given_starts", [False, True])
def test_a_sequence_of_one_step(given_starts):
    parts, starts = problem(time=1, seed=3)
    starts = torch.tensor([[True, False, True]]) if given_starts else None
    check_equal(parts, starts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sequence_without_steps_keeps_the_modulations(dtype):
    parts, starts = problem(time=0, dtype=dtype)
    h, M = mpn_sequence(parts["x"], parts["M"], starts, *(parts[name] for name in NAMES[2:]))
    assert (h.shape, h.dtype) == ((0, 3, 5), dtype)
    torch.testing.assert_close(M, parts["M"], rtol=0, atol=0)


@pytest.mark.parametrize("plasticity", PLASTICITIES)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_the_gradient_equals_finite_differences(plasticity, interaction):
    parts, _ = problem(time=4, batch=2, units=2, inputs=2)
    starts = torch.tensor([[False, True], [False, False], [True, False], [False, False]])
    leaves = [parts[name].requires_grad_() for name in NAMES]

    def sequence(x, M, *others):
        return mpn_sequence(x, M, starts, *others, Variant(plasticity=plasticity, interaction=interaction))

    assert torch.autograd.gradcheck(sequence, leaves)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_equals_finite_differences_for_every_activation(activation):
    parts, starts = problem(time=4, batch=2, units=2, inputs=2, seed=1)
    leaves = [parts[name].requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(
        lambda x, M, *o: mpn_sequence(x, M, starts, *o, Variant(activation=activation)), leaves
    )


def test_only_tensors_that_require_a_gradient_get_one():
    parts, starts = problem()
    _, everything = result_and_gradients(mpn_sequence, parts, starts)
    for asked in NAMES:
        leaves = {name: part.detach().clone().requires_grad_(name == asked) for name, part in parts.items()}
        h, M = mpn_sequence(leaves["x"], leaves["M"], starts, *(leaves[name] for name in NAMES[2:]))
        generator = torch.Generator().manual_seed(99)
        weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in (h, M)]
        ((h * weights[0]).sum() + (M * weights[1]).sum()).backward()
        torch.testing.assert_close(leaves[asked].grad, everything[asked], rtol=1e-12, atol=1e-12)
        assert all(leaf.grad is None for name, leaf in leaves.items() if name != asked)


def test_the_gradient_of_the_activities_alone_and_of_the_modulations_alone():
    parts, starts = problem()
    for chosen in (0, 1):
        found = []
        for function in (mpn_sequence, mpn_sequence_by_steps):
            W = parts["W"].clone().requires_grad_()
            outputs = function(parts["x"], parts["M"], starts, W, *(parts[name] for name in NAMES[3:]))
            outputs[chosen].square().sum().backward()
            found.append(W.grad)
        assert found[0].any()
        torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-11)


def test_two_halves_equal_the_whole_sequence_in_values_and_gradients():
    parts, starts = problem(time=8)
    others = [parts[name] for name in NAMES[3:]]
    gradients, ends = [], []
    for cuts in ([0, 8], [0, 3, 8]):
        W, M = parts["W"].clone().requires_grad_(), parts["M"]
        activities = []
        for first, end in itertools.pairwise(cuts):
            h, M = mpn_sequence(parts["x"][first:end], M, starts[first:end], W, *others)
            activities.append(h)
        (torch.cat(activities).square().sum() + M.square().sum()).backward()
        gradients.append(W.grad)
        ends.append((torch.cat(activities).detach(), M.detach()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-11)


def test_no_gradient_reaches_back_beyond_a_start():
    parts, _ = problem()
    starts = torch.zeros(6, 3, dtype=torch.bool)
    starts[4, :2] = True
    x, M = parts["x"].clone().requires_grad_(), parts["M"].clone().requires_grad_()
    h, _ = mpn_sequence(x, M, starts, *(parts[name] for name in NAMES[2:]))
    h[4:].sum().backward()
    assert not x.grad[:4, :2].any()
    assert not M.grad[:2].any()
    assert x.grad[:4, 2].any()
    assert M.grad[2].any()


# ----------------------------------------------------------------------------------------- layouts and side effects


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_any_memory_layout_of_the_inputs_works(dtype):
    parts, starts = problem(dtype=dtype)
    starts[0] = True
    strange = {
        "x": parts["x"].transpose(0, 1).contiguous().transpose(0, 1),
        "M": parts["M"].transpose(1, 2).contiguous().transpose(1, 2),
        "W": parts["W"].t().contiguous().t(),
        "b": torch.stack([parts["b"], parts["b"]], dim=1)[:, 0],
        "eta": parts["eta"],
        "lambda_": parts["lambda_"],
    }
    assert not any(strange[name].is_contiguous() for name in ("x", "M", "W", "b"))
    found = []
    for each, begins in ((parts, starts), (strange, starts.t().contiguous().t())):
        leaves = {name: part.detach().requires_grad_() for name, part in each.items()}
        h, M = mpn_sequence(leaves["x"], leaves["M"], begins, *(leaves[name] for name in NAMES[2:]))
        # The gradients that come in are not contiguous either.
        (h.transpose(0, 2).square().sum() + M.transpose(0, 2).square().sum()).backward()
        found.append([h.detach(), M.detach(), *(leaf.grad for leaf in leaves.values())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_expanded_inputs_and_states_have_gradients_of_their_shapes():
    parts, starts = problem()
    others = [parts[name] for name in NAMES[2:]]
    gradients = []
    for function in (mpn_sequence, mpn_sequence_by_steps):
        x, M = parts["x"][:1].clone().requires_grad_(), parts["M"][:1].clone().requires_grad_()
        h, last = function(x.expand(6, -1, -1), M.expand(3, -1, -1), starts, *others)
        (h.sum() + last.square().sum()).backward()
        gradients.append((x.grad, M.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gradient", [False, True])
def test_arguments_are_not_changed(gradient):
    parts, starts = problem()
    starts[0, 0] = True
    parts = {name: part.requires_grad_(gradient) for name, part in parts.items()}
    before = {name: part.detach().clone() for name, part in parts.items()}
    begins = starts.clone()
    h, M = mpn_sequence(parts["x"], parts["M"], starts, *(parts[name] for name in NAMES[2:]))
    if gradient:
        weight = torch.ones_like(h)
        torch.autograd.backward([h, M], [weight, torch.ones_like(M)])
        assert (weight == 1).all()
    for name, part in parts.items():
        assert torch.equal(part.detach(), before[name]), name
    assert torch.equal(starts, begins)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("activation", "plasticity", "interaction"), VARIANTS)
def test_results_are_the_same_without_gradients(activation, plasticity, interaction, dtype):
    parts, starts = problem(dtype=dtype)
    variant = {"activation": activation, "plasticity": plasticity, "interaction": interaction}
    (h, M), _ = result_and_gradients(mpn_sequence, parts, starts, **variant)
    plain = mpn_sequence(parts["x"], parts["M"], starts, *(parts[name] for name in NAMES[2:]), Variant(**variant))
    assert not plain[0].requires_grad
    assert torch.equal(plain[0], h)
    assert torch.equal(plain[1], M)


def test_a_gradient_can_be_taken_twice_from_the_same_graph():
    parts, starts = problem()
    W = parts["W"].clone().requires_grad_()
    h, M = mpn_sequence(parts["x"], parts["M"], starts, W, *(parts[name] for name in NAMES[3:]))
    first, second = (torch.autograd.grad(h.sum() + M.sum(), W, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


class Sizes(TorchDispatchMode):
    """The size of the largest tensor that is created inside the block, in elements."""

    largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel())
        return made


def test_without_gradients_past_modulations_are_not_stored():
    parts, _ = problem(time=50)
    W = parts["W"].requires_grad_()
    with torch.no_grad(), Sizes() as sizes:
        h, M = mpn_sequence(parts["x"], parts["M"], None, W, *(parts[name] for name in NAMES[3:]))
    assert 2 * M.numel() < h.numel(), "so that the test can tell"
    assert sizes.largest <= h.numel()


def test_the_final_state_may_be_changed_before_the_backward_pass():
    """Learners do this at the end of an episode."""
    parts, starts = problem()
    gradients = []
    for function in (mpn_sequence, mpn_sequence_by_steps):
        W = parts["W"].clone().requires_grad_()
        h, M = function(parts["x"], parts["M"], starts, W, *(parts[name] for name in NAMES[3:]))
        M.detach()[1] = 0
        h.sum().backward()
        gradients.append(W.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-11)
