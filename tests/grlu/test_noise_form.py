"""The form of the noise and decorrelated inputs: equations (20) to (25) against loops, in expectation, compiled."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grlu.drawn import noise_of_steps
from plastic_cli.errors import UserError
from plastic_cli.resolve import resolve
from plastic_grlu import rule
from plastic_grlu.config import Train
from plastic_grlu.epoch import Decorrelation, NoiseState, Settings, train_epoch
from plastic_grlu.kernels.learn import Draws, Form, Options, Samples, learn
from plastic_grlu.learner import GRLULearner

NO_NUMBERS = np.empty(0)


def problem(sizes, batch=2, perturbations=2, seed=0, sigma=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    weights, biases = rule.initial_parameters(sizes, generator, dtype)
    biases = [0.3 * torch.randn(bias.shape, generator=generator, dtype=dtype) for bias in biases]
    x = torch.rand(batch, sizes[0], generator=generator, dtype=dtype)
    y = torch.randint(sizes[-1], (batch,), generator=generator)
    rows = batch * perturbations
    noises = [sigma * torch.randn(rows, width, generator=generator, dtype=dtype) for width in sizes[1:]]
    sources = [source.to(dtype) for source in rule.initial_sources(sizes, generator)]
    matrices = [
        torch.eye(width, dtype=dtype) + 0.1 * torch.randn(width, width, generator=generator, dtype=dtype)
        for width in sizes[:-1]
    ]
    return weights, biases, x, y, noises, sources, matrices


def flat(updates):
    return torch.cat([part.flatten() for part in (*updates[0], *updates[1])])


def interleaved(weights, biases):
    return torch.cat([part.flatten() for pair in zip(weights, biases, strict=True) for part in pair])


def of_kernel(form, maps=NO_NUMBERS, rho=0.0):
    """The form of the noise as the kernel takes it. maps: R_l of each layer, one after the other."""
    sources = np.concatenate([NO_NUMBERS, *(part.numpy().ravel() for part in form.sources)])
    return Form(form.active_only, form.one_layer, form.only_readout, form.readout, sources, maps, rho)


class Loop:
    """Steps image by image and unit by unit in float64 NumPy, with R_l; equations (1) to (6) and (20) to (25)."""

    def __init__(self, weights, biases, matrices, form, credit):
        self.W, self.b = [part.numpy().copy() for part in weights], [part.numpy().copy() for part in biases]
        self.R = [part.numpy().copy() for part in matrices]
        self.form, self.credit = form, credit
        self.B = [part.numpy() for part in form.sources]
        self.seen = [[] for _ in self.W]

    def passes(self, image, noise):
        """Both passes of a pair, and the inputs and the noise of each layer."""
        layers, h, inputs, used = len(self.W), [image, image], [], []
        for layer in range(layers):
            xstar = [self.R[layer] @ ((one - one.mean()) / np.sqrt(one.var() + 1e-5)) for one in h]
            z = [self.W[layer] @ one + self.b[layer] for one in xstar]
            own = noise[layer].copy()
            if self.form.active_only and layer < layers - 1:
                for unit in range(len(own)):
                    if not z[0][unit] + z[1][unit] > 0:
                        own[unit] = 0
            signed = [own, -own]
            if self.credit == "preactivation":
                z = [one + part for one, part in zip(z, signed, strict=True)]
            h = z if layer == layers - 1 else [np.maximum(one, 0) for one in z]
            if self.credit == "output":
                h = [one + part for one, part in zip(h, signed, strict=True)]
            inputs.append((xstar[0] + xstar[1]) / 2)
            used.append(own)
        return inputs, used, h

    def step(self, x, y, noises, turn, rate):
        layers, batch = len(self.W), len(x)
        pairs = len(noises[-1]) // batch
        dW, db = [np.zeros_like(part) for part in self.W], [np.zeros_like(part) for part in self.b]
        seen = [np.zeros((batch, part.shape[1])) for part in self.W]
        for pair in range(pairs):
            for image in range(batch):
                drawn = [part[pair * batch + image].numpy() for part in noises]
                noise = [matrix @ drawn[-1] for matrix in self.B] + drawn[-1:] if self.B else drawn
                noise = [*noise[:-1], self.form.readout * noise[-1]]
                if self.form.one_layer:
                    noise = [part if layer == (turn + pair) % layers else 0 * part for layer, part in enumerate(noise)]
                if self.form.only_readout:
                    noise = [*(0 * part for part in noise[:-1]), noise[-1]]
                inputs, used, logits = self.passes(x[image].numpy(), noise)
                plus, minus = (float(one[int(y[image])] - np.log(np.exp(one).sum())) for one in logits)
                d = (plus - minus) / 2
                for layer in range(layers):
                    factor = layers if self.form.one_layer else 1
                    if layer == layers - 1:
                        factor /= self.form.readout**2
                    dW[layer] += factor * np.outer(used[layer] * d, inputs[layer]) / pairs
                    db[layer] += factor * used[layer] * d / pairs
                    seen[layer][image] += inputs[layer] / pairs
        for layer in range(layers):
            self.W[layer] += rate * dW[layer]
            self.b[layer] += rate * db[layer]
            self.seen[layer] += list(seen[layer])
        return dW, db

    def decorrelate(self, rho):
        for layer, seen in enumerate(self.seen):
            correlation = np.mean([np.outer(one, one) for one in seen], axis=0)
            self.R[layer] -= rho * (correlation - np.diag(np.diag(correlation))) @ self.R[layer]
            seen.clear()

    @property
    def parameters(self):
        return np.concatenate([part.ravel() for pair in zip(self.W, self.b, strict=True) for part in pair])

    @property
    def maps(self):
        return np.concatenate([part.ravel() for part in self.R])


forms = st.builds(
    rule.NoiseForm,
    active_only=st.booleans(),
    one_layer=st.booleans(),
    only_readout=st.booleans(),
    readout=st.sampled_from([1.0, 0.3]),
    turn=st.integers(0, 5),
)


@settings(max_examples=20, deadline=None)
@given(
    form=forms,
    common=st.booleans(),
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    batch=st.integers(1, 3),
    perturbations=st.integers(1, 3),
    credit=st.sampled_from(["output", "preactivation"]),
    seed=st.integers(0, 1000),
)
def test_update_equals_loops_over_units(form, common, sizes, batch, perturbations, credit, seed):
    weights, biases, x, y, noises, sources, matrices = problem(sizes, batch, perturbations, seed)
    form = form._replace(sources=sources if common else ())
    loop = Loop(weights, biases, matrices, form, credit)
    dW, db = loop.step(x, y, noises, form.turn, 0.0)
    whole = rule.decorrelated_weights(weights, matrices)
    updates, of_biases, _ = rule.update_of_form(whole, biases, x, y, noises, form, credit=credit)
    found = flat((rule.decorrelated_updates(updates, matrices), of_biases))
    expected = torch.from_numpy(np.concatenate([part.ravel() for part in (*dW, *db)]))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    shaped = rule.noise_of_form(whole, biases, x, noises, form, credit=credit)
    inputs = rule.mean_inputs(whole, biases, x, shaped, credit=credit)
    for layer, (normed, matrix) in enumerate(zip(inputs, matrices, strict=True)):
        torch.testing.assert_close(normed @ matrix.T, torch.from_numpy(np.array(loop.seen[layer])))
        change = rule.decorrelation_update(matrix, normed @ matrix.T)
        before = loop.R[layer]
        correlation = np.mean([np.outer(one, one) for one in loop.seen[layer]], axis=0)
        np.testing.assert_allclose(change.numpy(), -(correlation - np.diag(np.diag(correlation))) @ before, atol=1e-10)


@pytest.mark.parametrize("sizes", [[12, 10], [12, 9, 10], [12, 9, 7, 10]])
@pytest.mark.parametrize("credit", ["output", "preactivation"])
@pytest.mark.parametrize(
    ("batch", "perturbations", "form", "common", "rho"),
    [
        (1, 1, rule.NoiseForm(active_only=True), False, 0.0),
        (3, 2, rule.NoiseForm(one_layer=True), False, 0.01),
        (1, 1, rule.NoiseForm(active_only=True, readout=0.5), True, 0.0),
        (2, 3, rule.NoiseForm(active_only=True, one_layer=True, readout=0.5), True, 0.01),
        (2, 3, rule.NoiseForm(only_readout=True), False, 0.0),
    ],
)
def test_kernel_equals_loops_over_units(sizes, credit, batch, perturbations, form, common, rho):
    """Five steps of the kernel with given noise, in float64; 64 // batch is more, so R_l learns once, at the end."""
    steps, rate = 5, 0.2
    weights, biases, x, y, _, sources, matrices = problem(sizes, batch * steps)
    form = form._replace(sources=sources if common else ())
    matrices = matrices if rho else [torch.eye(width, dtype=torch.float64) for width in sizes[:-1]]
    generator = torch.Generator().manual_seed(5)
    widths = sizes[-1:] if common else sizes[1:]
    draws = [
        [0.3 * torch.randn(batch * perturbations, width, generator=generator, dtype=torch.float64) for width in widths]
        for _ in range(steps)
    ]
    loop, first_step = Loop(weights, biases, matrices, form, credit), 11
    for step, noises in enumerate(draws):
        of_step = slice(batch * step, batch * (step + 1))
        loop.step(x[of_step], y[of_step], noises, (first_step + step) * perturbations, rate)
    loop.decorrelate(rho)
    parameters = interleaved(weights, biases).numpy().copy()
    maps = torch.cat([part.flatten() for part in matrices]).numpy().copy() if rho else NO_NUMBERS
    normal = torch.stack([torch.cat([part.flatten() for part in noises]) for noises in draws]).numpy()
    learn(
        parameters,
        np.array(sizes),
        Samples(x.numpy(), y.numpy(), np.arange(batch * steps)),
        Options(batch, perturbations, 0.3, rate, credit == "preactivation", False, np.zeros(len(sizes) - 2, np.int64)),
        Draws(np.uint64(0), np.uint64(first_step), normal, np.empty((steps, 0))),
        np.empty(steps),
        of_kernel(form, maps, rho),
    )
    np.testing.assert_allclose(parameters, loop.parameters, rtol=1e-7, atol=1e-9)
    if rho:
        np.testing.assert_allclose(maps, loop.maps, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("credit", ["output", "preactivation"])
@pytest.mark.parametrize(
    ("form", "common"),
    [
        (rule.NoiseForm(one_layer=True, turn=6), False),
        (rule.NoiseForm(only_readout=True), False),
        (rule.NoiseForm(readout=0.5), True),
    ],
)
def test_kernel_equals_the_rule_with_masks_of_the_shaped_noise(form, common, credit, skip):
    """One step with top-k: masks are those of the noise that units get, not of the noise that was drawn."""
    sizes, batch, perturbations, top_k = [12, 9, 9, 4], 2, 3, 0.5
    weights, biases, x, y, noises, sources, _ = problem(sizes, batch, perturbations, sigma=1.0)
    form = form._replace(sources=sources if common else ())
    generator = torch.Generator().manual_seed(7)
    rows = batch * perturbations
    gumbels = [torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in sizes[1:-1]]
    shaped = rule.noise_of_form(weights, biases, x, noises, form, credit=credit, skip=skip)
    chosen = {"credit": credit, "skip": skip}
    masks = rule.pair_masks(weights, biases, x, shaped, gumbels, top_k, **chosen)
    drawn = rule.pair_masks(weights, biases, x, noises, gumbels, top_k, **chosen)
    assert any(not torch.equal(one, other) for one, other in zip(masks, drawn, strict=True))
    updates, of_biases, _ = rule.scaled_by_form(rule.grlu_update(weights, biases, x, y, shaped, masks, **chosen), form)
    expected = interleaved(
        [weight + 0.2 * update for weight, update in zip(weights, updates, strict=True)],
        [bias + 0.2 * update for bias, update in zip(biases, of_biases, strict=True)],
    )
    parameters = interleaved(weights, biases).numpy().copy()
    normal = noises[-1:] if common else noises
    kept = np.array([rule.kept_units(width, top_k) for width in sizes[1:-1]])
    learn(
        parameters,
        np.array(sizes),
        Samples(x.numpy(), y.numpy(), np.arange(batch)),
        Options(batch, perturbations, 1.0, 0.2, credit == "preactivation", skip, kept),
        Draws(
            np.uint64(0),
            np.uint64(form.turn // perturbations),
            torch.cat([part.flatten() for part in normal])[None].numpy(),
            torch.cat([part.flatten() for part in gumbels])[None].numpy(),
        ),
        np.empty(1),
        of_kernel(form),
    )
    np.testing.assert_allclose(parameters, expected.numpy(), rtol=1e-7, atol=1e-9)


def trained(options, **settings_of):
    """Parameters after 150 steps of `train_epoch`, and R_l."""
    weights, biases, x, y, _, _, _ = problem([6, 8, 4], 150, dtype=torch.float32)
    decorrelation = settings_of.pop("decorrelation", None)
    if decorrelation is not None:
        decorrelation = Decorrelation([torch.eye(6), torch.eye(8)], decorrelation)
    chosen = Settings(1, 0.1, 0.1, credit="preactivation", decorrelation=decorrelation, **settings_of)
    train_epoch(weights, biases, x, y, torch.arange(150), chosen, NoiseState(3, options.get("counter", 0)))
    return interleaved(weights, biases), [] if decorrelation is None else decorrelation.matrices


def test_rate_zero_is_the_rule_without_decorrelation():
    """With R_l = I that does not learn, only the order of sums may differ: here not even that."""
    plain, none = trained({}), trained({}, decorrelation=0.0)
    assert torch.equal(plain[0], none[0])
    assert all(torch.equal(matrix, torch.eye(len(matrix))) for matrix in none[1])
    assert torch.equal(plain[0], trained({}, form=rule.NoiseForm(turn=9))[0])
    assert not torch.equal(plain[0], trained({}, decorrelation=0.01)[0])


def test_each_part_changes_what_is_learned():
    sources = rule.initial_sources([6, 8, 4], torch.Generator().manual_seed(1))
    parts = ({}, *({name: True} for name in ("active_only", "one_layer", "only_readout")))
    parts = (*parts, {"readout": 0.5}, {"sources": sources})
    found = [trained({}, form=rule.NoiseForm(**part))[0] for part in parts]
    assert len({tuple(one.tolist()) for one in found}) == len(parts)


@pytest.mark.parametrize("layer", [0, 1])
def test_layers_take_turns(layer):
    """In a step that is the turn of one layer, the others do not change."""
    weights, biases, x, y, *_ = problem([6, 8, 4], 1, dtype=torch.float32)
    before = [part.clone() for part in weights]
    form = rule.NoiseForm(one_layer=True)
    chosen = Settings(1, 0.1, 0.1, credit="preactivation", form=form)
    train_epoch(weights, biases, x, y, torch.zeros(1, dtype=torch.int64), chosen, NoiseState(3, 6 + layer))
    assert [torch.equal(new, old) for new, old in zip(weights, before, strict=True)] == [layer == 1, layer == 0]


@pytest.mark.parametrize("credit", ["output", "preactivation"])
@pytest.mark.parametrize("top_k", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_noise_in_the_readout_alone_hidden_layers_stay_random(credit, top_k, dtype):
    """The readout learns, compiled and in plain torch: one hidden layer of 40 units tells two classes apart."""
    generator = torch.Generator().manual_seed(0)
    weights, biases = rule.initial_parameters([6, 40, 30, 2], generator, dtype)
    before = [part.clone() for part in (*weights, *biases)]
    x = torch.randn(600, 6, generator=generator, dtype=dtype)
    y = (x[:, 0] > x[:, 1]).long()
    form = rule.NoiseForm(only_readout=True)
    chosen = Settings(1, 0.1, 1.0, credit=credit, top_k=top_k, form=form)
    for epoch in range(3):
        train_epoch(weights, biases, x, y, torch.arange(600), chosen, NoiseState(3, 600 * epoch))
    same = [torch.equal(new, old) for new, old in zip((*weights, *biases), before, strict=True)]
    assert same == [True, True, False, True, True, False]
    correct = rule.predict(weights, biases, x, top_k=top_k).argmax(1) == y
    assert correct.double().mean() > 0.85


def test_the_readout_alone_learns_as_in_the_whole_rule():
    """To leading order, the mean update of the readout is that of the whole rule, with less variance."""
    weights, biases, x, y, *_ = problem([6, 7, 4], batch=1)
    gradient = rule.gradient_update(weights, biases, x, y)[1]
    sigma, draws = 1e-3, 800
    generator = torch.Generator().manual_seed(4)
    found = []
    for _ in range(draws):
        noises = [sigma * torch.randn(1, width, generator=generator, dtype=torch.float64) for width in (7, 4)]
        form = rule.NoiseForm(only_readout=True)
        found.append(rule.update_of_form(weights, biases, x, y, noises, form, credit="preactivation")[1][-1])
    estimates, expected = torch.stack(found) / sigma**2, gradient[-1]
    # Without the noise of hidden units: g_i^2 + |g|^2 of the readout alone.
    variance = expected.square() + expected.square().sum()
    assert (estimates.mean(0) - expected).norm() < 4 * math.sqrt(float(variance.sum()) / draws)
    torch.testing.assert_close(estimates.var(0), variance, rtol=0.4, atol=0)


@pytest.mark.parametrize(
    ("form", "batch"),
    [(rule.NoiseForm(active_only=True, one_layer=True, readout=0.4), 1), (rule.NoiseForm(active_only=True), 3)],
)
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.03])
def test_train_epoch_equals_the_rule_with_the_noise_of_the_kernels(form, batch, common, rho):
    """70 steps, more than a block, in single precision and against float64, with the numbers of `noise_of_steps`."""
    sizes, steps, perturbations = [8, 7, 4], 70, 2
    weights, biases, x, y, _, sources, _ = problem(sizes, steps * batch)
    form = form._replace(sources=sources if common else ())
    eye = [torch.eye(width, dtype=torch.float64) for width in sizes[:-1]]
    loop, state = Loop(weights, biases, eye, form, "preactivation"), NoiseState(8)
    drawn = noise_of_steps(
        state,
        steps,
        [sizes[0], sizes[-1]] if common else sizes,
        rows=batch * perturbations,
        sigma=0.2,
        top_k=None,
    )[0]
    chosen = Settings(
        perturbations,
        0.2,
        0.5,
        batch,
        "preactivation",
        form=form._replace(sources=[part.float() for part in form.sources]),
        decorrelation=Decorrelation([part.float() for part in eye], rho) if rho else None,
    )
    for step, noises in enumerate(drawn):
        of_step = slice(batch * step, batch * (step + 1))
        exact = [part.double() for part in noises]
        loop.step(x[of_step], y[of_step], exact, step * perturbations, 0.5)
        if (step + 1) % chosen.steps_per_block == 0 or step == steps - 1:
            loop.decorrelate(rho)
    single = [part.float() for part in weights], [part.float() for part in biases]
    train_epoch(*single, x.float(), y, torch.arange(steps * batch), chosen, state)
    np.testing.assert_allclose(interleaved(*single).numpy(), loop.parameters, rtol=2e-3, atol=2e-4)
    if rho:
        maps = torch.cat([part.flatten() for part in chosen.decorrelation.matrices])
        np.testing.assert_allclose(maps.numpy(), loop.maps, rtol=2e-3, atol=2e-4)
        assert np.abs(loop.maps - torch.cat([part.flatten() for part in eye]).numpy()).max() > 0.02


def test_plain_torch_takes_the_same_steps():
    """Float64 parameters use rule.py: with its own noise, the mean over runs is that of the kernels."""
    sizes, form = [6, 8, 4], rule.NoiseForm(active_only=True, one_layer=True, readout=0.5)
    weights, biases, x, y, *_ = problem(sizes, 130)
    found, rate, runs = [], 1e-3, 12
    for dtype in (torch.float64, torch.float32):
        changes = []
        for key in range(runs):
            single = [part.to(dtype).clone() for part in weights], [part.to(dtype).clone() for part in biases]
            chosen = Settings(
                1,
                0.1,
                rate,
                credit="preactivation",
                form=form,
                decorrelation=Decorrelation([torch.eye(6, dtype=dtype), torch.eye(8, dtype=dtype)], 1e-3),
            )
            train_epoch(*single, x.to(dtype), y, torch.arange(130), chosen, NoiseState(key))
            changes.append((interleaved(*single).double() - interleaved(weights, biases)) / (130 * rate * 0.01))
        found.append(torch.stack(changes))
    error = found[0].var(0) / runs + found[1].var(0) / runs
    deviation = (found[0].mean(0) - found[1].mean(0)).square() / error
    # Each of the 92 terms has mean 1; their mean has a standard deviation of about 0.15 if they are independent.
    assert 0.3 < deviation.mean() < 2


@pytest.mark.parametrize(("batch", "blocks"), [(3, 2), (40, 2), (10, 1)])
def test_a_smaller_last_batch_is_a_block_of_its_own(batch, blocks):
    """With weights that do not change and nearly no noise, compiled and plain steps teach R_l the same."""
    sizes, images = [6, 8, 4], 50
    weights, biases, x, y, *_ = problem(sizes, images)
    found = []
    for dtype in (torch.float64, torch.float32):
        decorrelation = Decorrelation([torch.eye(6, dtype=dtype), torch.eye(8, dtype=dtype)], 0.1)
        single = [part.to(dtype) for part in weights], [part.to(dtype) for part in biases]
        chosen = Settings(1, 1e-6, 0.0, batch, "preactivation", decorrelation=decorrelation)
        train_epoch(*single, x.to(dtype), y, torch.arange(images), chosen, NoiseState(0))
        found.append(decorrelation.matrices)
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(plain, compiled.double(), rtol=1e-4, atol=1e-5)
    inputs = rule.layer_norm(x)
    matrix, full = torch.eye(6, dtype=torch.float64), images - images % batch
    parts = [inputs[:full], inputs[full:]][:blocks]
    for part in parts:
        matrix = matrix + 0.1 * rule.decorrelation_update(matrix, part @ matrix.T)
    torch.testing.assert_close(found[0][0], matrix, rtol=1e-9, atol=1e-9)


def test_parts_that_leave_the_expectation():
    """The mean over noise is sigma^2 G; the variances of the biases' updates are those of rule.py."""
    sizes, sigma, draws = [6, 7, 4], 1e-3, 1500
    weights, biases, x, y, *_ = problem(sizes, batch=1, seed=3)
    gradient = torch.cat(rule.gradient_update(weights, biases, x, y)[1])
    hidden, readout = gradient[:7].square().sum(), gradient[7:].square().sum()
    z = torch.nn.functional.linear(rule.layer_norm(x), weights[0], biases[0])[0]
    active = torch.cat([(z > 0).double(), torch.ones(4, dtype=torch.float64)])
    of_layer = torch.cat([torch.zeros(7), torch.ones(4)])
    total = hidden + readout
    # P = 2 pairs for each layer alone if layers take turns: P pairs in all, so twice the variance of its own gradient.
    cases = {
        rule.OWN_NOISE: total.expand(11),
        rule.NoiseForm(active_only=True): total * active,
        rule.NoiseForm(readout=0.5): torch.where(of_layer == 0, hidden + readout / 4, 4 * hidden + readout),
        rule.NoiseForm(one_layer=True): 2 * torch.where(of_layer == 0, hidden, readout),
    }
    for form, of_others in cases.items():
        generator = torch.Generator().manual_seed(4)
        noises = [
            sigma * torch.randn(2 * draws, width, generator=generator, dtype=torch.float64) for width in sizes[1:]
        ]
        found = []
        for draw in range(draws):
            part = [noise[2 * draw : 2 * draw + 2] for noise in noises]
            found.append(torch.cat(rule.update_of_form(weights, biases, x, y, part, form, credit="preactivation")[1]))
        estimates = torch.stack(found) / sigma**2
        own = 2 * gradient.square() if form.one_layer else gradient.square()
        variances = (of_others + own) / 2
        assert (estimates.mean(0) - gradient).norm() < 4 * math.sqrt(float(variances.sum()) / draws)
        torch.testing.assert_close(estimates.var(0), variances, rtol=0.4, atol=1e-3 * float(variances.sum()))


def test_common_noise_gives_random_feedback_of_the_estimated_error():
    """The mean over noise is sigma^2 S S^T G, and hidden layers learn B_l times what the readout learns."""
    sizes, sigma, draws = [6, 7, 5, 4], 1e-3, 1500
    weights, biases, x, y, _, sources, _ = problem(sizes, batch=1, seed=2)
    form = rule.NoiseForm(sources=sources)
    mixing = torch.cat([*sources, torch.eye(4, dtype=torch.float64)])
    gradient = torch.cat(rule.gradient_update(weights, biases, x, y)[1])
    carried = mixing.T @ gradient
    noise = sigma * torch.randn(draws, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for row in noise:
        updates = rule.update_of_form(weights, biases, x, y, [row[None]], form, credit="preactivation")[1]
        for source, update in zip(sources, updates, strict=False):
            torch.testing.assert_close(update, source @ updates[-1])
        found.append(torch.cat(updates) / sigma**2)
    expected = mixing @ carried
    variance = mixing.square().sum() * carried.square().sum() + expected.square().sum()
    assert (torch.stack(found).mean(0) - expected).norm() < 4 * math.sqrt(float(variance) / draws)
    assert float(torch.stack(found).var(0).sum()) == pytest.approx(float(variance), rel=0.15)
    # An ascent direction.
    assert expected @ gradient > 0
    # B_l ~ N(0, 1 / d_L): the noise of a unit has the variance of the noise of the readout.
    (wide,) = rule.initial_sources([3, 20_000, 10], torch.Generator().manual_seed(0))
    assert wide.square().sum(1).mean() == pytest.approx(1, abs=0.02)


def test_a_baseline_cancels():
    """Half the difference of a pair does not change if both rewards lose the same number."""
    plus, minus = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    baseline = torch.randn(7, dtype=torch.float64)
    torch.testing.assert_close(
        rule.antithetic_difference(plus - baseline, minus - baseline), rule.antithetic_difference(plus, minus)
    )


def test_decorrelation_learns_to_decorrelate():
    """Two correlated inputs: the correlation vanishes, and the fixed points are exactly the diagonal correlations."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(5000, 3, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.3, 0.0, 1.0]], dtype=torch.float64
    )
    matrix = torch.eye(3, dtype=torch.float64)

    def off_diagonal():
        correlation = (mixed @ matrix.T).T @ (mixed @ matrix.T) / len(mixed)
        return (correlation - correlation.diag().diag()).abs().max()

    before = off_diagonal()
    for _ in range(300):
        matrix += 0.1 * rule.decorrelation_update(matrix, mixed @ matrix.T)
    assert before > 0.4
    assert off_diagonal() < 1e-6
    assert matrix.diag().min() > 0.3


def test_prediction_and_checkpoint_with_decorrelation_and_sources():
    options = {"perturbations": 1, "decorrelation": 1e-3, "common_noise": True, "form": rule.NoiseForm(True)}

    def learner(seed):
        return GRLULearner([6, 8, 4], torch.Generator().manual_seed(seed), np.random.SeedSequence(0), **options)

    plain = GRLULearner([6, 8, 4], torch.Generator().manual_seed(0), np.random.SeedSequence(0), perturbations=1)
    mine = learner(0)
    assert all(torch.equal(a, b) for a, b in zip(mine.weights, plain.weights, strict=True))
    x, y = torch.rand(200, 6), torch.randint(4, (200,))
    mine.train_batch(x, y)
    loop = Loop(mine.weights, mine.biases, mine.decorrelation.matrices, rule.OWN_NOISE, "preactivation")
    zeros = [np.zeros(len(bias), np.float32) for bias in mine.biases]
    expected = np.stack([loop.passes(image.numpy(), zeros)[2][0] for image in x])
    np.testing.assert_allclose(mine.predict(x).numpy(), expected, rtol=1e-4, atol=1e-5)
    other = learner(1)
    other.load_state_dict(mine.state_dict())
    for one in (mine, other):
        one.train_batch(x, y)
    for ours, theirs in zip(mine._tensors(), other._tensors(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"noise_units": "active"},
        {"noise_sources": "readout"},
        {"noise_layers": "one"},
        {"readout_noise": 0.5},
        {"decorrelation": 1e-3},
    ],
)
def test_options_that_exclude_each_other_are_refused(options):
    name = f"--{next(iter(options)).replace('_', '-')}"
    assert Train.from_values({**options, "credit": "preactivation"}).is_plain
    for other in (
        {"optimizer": "adam"},
        {"model": "lenet"},
        {"reward_groups": 2},
        {"credit": "learned"},
        {"update": "backprop"},
    ):
        with pytest.raises(UserError, match=name):
            resolve(Train, {**options, **other}).refuse_unused()


def test_noise_in_the_readout_alone_needs_a_rule_with_one_scalar():
    for other in ({"optimizer": "adam"}, {"model": "lenet"}, {"model": "lenet", "credit": "preactivation"}):
        resolve(Train, {**other, "noise_layers": "readout"}).refuse_unused()
    for other in ({"reward_groups": 2}, {"credit": "learned"}, {"update": "backprop"}):
        for model in ({}, {"model": "lenet"}):
            with pytest.raises(UserError, match=r"--(noise-layers|reward-groups)"):
                resolve(Train, {**other, **model, "noise_layers": "readout"}).refuse_unused()


@pytest.mark.parametrize("options", [{"noise_units": "active"}, {"decorrelation": 1e-3}])
def test_options_that_need_relu_are_refused_with_top_k(options):
    name = f"--{next(iter(options)).replace('_', '-')}"
    with pytest.raises(UserError, match=name):
        resolve(Train, {**options, "k": 0.5}).refuse_unused()
    assert Train.from_values({"noise_layers": "readout", "k": 0.5}).k == 0.5


def test_a_rate_of_decorrelation_that_diverges_is_refused():
    with pytest.raises(UserError, match="less than 1"):
        Train.from_values({"decorrelation": 100})


@pytest.mark.parametrize("options", [{"noise_units": "active"}, {"noise_sources": "readout"}, {"decorrelation": 1e-3}])
def test_noise_in_the_readout_alone_leaves_hidden_layers_as_they_are(options):
    with pytest.raises(UserError, match="--noise-layers readout leaves hidden layers as they are"):
        resolve(Train, {**options, "noise_layers": "readout"}).refuse_unused()


def test_settings_that_exclude_each_other_are_refused():
    weights, biases, x, y, *_ = problem([4, 6, 3], dtype=torch.float32)
    form = rule.NoiseForm(active_only=True)
    wrong = {
        "one group": {"form": form, "groups": 2},
        "need ReLU": {"form": form, "top_k": 0.5},
        "must be positive": {"form": rule.NoiseForm(readout=0.0)},
        "sources have shapes": {"form": rule.NoiseForm(sources=[torch.zeros(6, 4)])},
        "decorrelation has shapes": {"decorrelation": Decorrelation([torch.eye(4)], 0.1)},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            train_epoch(weights, biases, x, y, torch.arange(2), Settings(1, 0.1, 0.1, **options), NoiseState(1))
