"""Cores and agents: the common interface, and the properties of each core."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from plastic_mpn import MPN, MPNDQN, ActorCritic, Core, Readout, make_core
from plastic_mpn.networks.cores import LARGEST_FIRST_ETA

PLASTIC = ["mpn", "mpn-pre", "mpn-post", "mpn-additive", "mpn-frozen"]
CORES = [*PLASTIC, "rnn", "gru", "lstm", "mlp"]
EVERY = list(itertools.product(CORES, (1, 2), (0, 3)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=7):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def make(name, layers=1, projection=0, seed=0, **options):
    """A core in float64, 4 inputs and 5 units; M of an MPN changes fast, so that it has an effect."""
    plasticity = {"eta": 0.4, "lambda_decay": 0.8} if name in PLASTIC else {}
    options = {"layers": layers, "projection": projection, "generator": generator(seed), **plasticity, **options}
    return make_core(name, 4, 5, **options).double()


def close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def assert_same_weights(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


# -------------------------------------------------------------------------------------------- as the library is used


def test_the_library_is_used_as_documented():
    dqn = MPNDQN(obs_dim=4, hidden_dim=64, action_dim=2)
    state = dqn.init_state(batch_size=1)
    q_values, new_state = dqn(torch.randn(1, 4, generator=generator()), state)
    assert q_values.shape == (1, 2)
    assert new_state.shape == (1, 64, 4)
    assert not state.any()
    action, new_state = dqn.select_action(torch.zeros(1, 4), state, epsilon=0.1)
    assert action in (0, 1)
    assert isinstance(action, int)
    assert new_state.shape == (1, 64, 4)
    assert isinstance(dqn.core, MPN)
    assert float(dqn.core.eta) == pytest.approx(0.01)
    assert float(dqn.core.lambda_) == pytest.approx(0.95)
    assert dqn.core.variant.activation == "tanh"


def test_a_layer_takes_one_step_or_a_whole_sequence():
    layer = MPN(3, 6)
    h, M = layer(torch.ones(2, 3), layer.init_state(2))
    assert (h.shape, M.shape) == ((2, 6), (2, 6, 3))
    h, M = layer(torch.ones(9, 2, 3), layer.init_state(2))
    assert (h.shape, M.shape) == ((9, 2, 6), (2, 6, 3))


# ---------------------------------------------------------------------------------------------------- the interface


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_a_sequence_equals_single_steps(name, layers, projection):
    core = make(name, layers, projection)
    x = normal(7, 3, 4)
    starts = torch.rand(7, 3, generator=generator(1)) < 0.25
    starts[0, 1] = True
    state = normal(3, *core.state_shape, seed=2)
    first = state.clone()
    h, last = core(x, state, starts)
    assert h.shape == (7, 3, 5)
    assert last.shape == (3, *core.state_shape)
    assert torch.equal(state, first), "the state that comes in is left alone"
    stepped = state
    for step in range(7):
        one, stepped = core(x[step], stepped, starts[step])
        close(h[step], one)
    close(last, stepped)


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_a_start_resets_the_state(name, layers, projection):
    core = make(name, layers, projection)
    x = normal(6, 2, 4)
    starts = torch.zeros(6, 2, dtype=torch.bool)
    starts[3] = True
    h, last = core(x, normal(2, *core.state_shape), starts)
    alone, end = core(x[3:], core.init_state(2))
    close(h[3:], alone)
    close(last, end)
    without = core(x, normal(2, *core.state_shape))[0]
    assert torch.allclose(h[3:], without[3:]) == (name == "mlp")


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_setting_the_state_to_zero_keeps_the_activity(name, layers, projection):
    """Learners do this at the end of an episode."""
    core = make(name, layers, projection)
    for x in (normal(3, 4), normal(2, 3, 4)):
        with torch.no_grad():
            h, state = core(x)
        kept = h.clone()
        state[1] = 0
        assert torch.equal(h, kept)


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_the_default_initial_state_is_zero(name, layers, projection):
    core = make(name, layers, projection)
    assert isinstance(core, Core)
    assert (core.input_dim, core.hidden_dim) == (4, 5)
    state = core.init_state(3)
    assert state.shape == (3, *core.state_shape)
    assert state.dtype == torch.float64
    assert not state.any()
    for x in (normal(3, 4), normal(2, 3, 4)):
        for found, wanted in zip(core(x), core(x, state), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize(("name", "shape"), [("gru", (5,)), ("rnn", (5,)), ("lstm", (2, 5)), ("mlp", (0,))])
def test_shapes_of_the_states_of_the_controls(name, shape):
    core = make(name)
    assert core.state_shape == shape
    assert core.plastic_layers() == []
    assert core.matrices(core.init_state(2)) == []


@pytest.mark.parametrize("name", PLASTIC)
@pytest.mark.parametrize("projection", [0, 3])
def test_matrices_are_the_modulations_of_each_layer(name, projection):
    core = make(name, 2, projection)
    seen = projection or 4
    assert core.state_shape == (5 * seen + 5 * 5,)
    assert [(layer.input_dim, layer.hidden_dim) for layer in core.plastic_layers()] == [(seen, 5), (5, 5)]
    state = normal(3, *core.state_shape)
    lower, upper = core.matrices(state)
    assert (lower.shape, upper.shape) == ((3, 5, seen), (3, 5, 5))
    close(torch.cat([lower.flatten(1), upper.flatten(1)], dim=1), state)
    single = make(name, 1, projection)
    state = normal(3, 5, seen)
    assert len(single.matrices(state)) == len(single.plastic_layers()) == 1
    close(single.matrices(state)[0], state)


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_a_core_is_restored_from_its_state_dict(name, layers, projection):
    one, other = make(name, layers, projection, seed=0), make(name, layers, projection, seed=1)
    x = normal(4, 2, 4)
    assert not torch.allclose(one(x)[0], other(x)[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x)[0], other(x)[0])


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_weights_depend_only_on_the_generator(name, layers, projection):
    one = make(name, layers, projection, seed=4)
    torch.rand(3)
    assert_same_weights(one, make(name, layers, projection, seed=4))
    another = make(name, layers, projection, seed=5)
    # Tables of weights are drawn; some biases begin at 0.
    drawn = [weights for weights, values in one.state_dict().items() if values.dim() == 2]
    assert drawn
    assert not any(torch.equal(one.state_dict()[weights], another.state_dict()[weights]) for weights in drawn)


@pytest.mark.parametrize("network", [MPNDQN, ActorCritic, Readout])
def test_all_parameters_of_an_agent_depend_only_on_the_generator(network):
    one = network(4, 5, 2, core="gru", generator=generator(4))
    torch.rand(3)
    assert_same_weights(one, network(4, 5, 2, core="gru", generator=generator(4)))


@pytest.mark.parametrize(("name", "layers", "projection"), EVERY)
def test_every_parameter_has_a_gradient(name, layers, projection):
    core = make(name, layers, projection)
    h, state = core(normal(6, 2, 4))
    (h.square().sum() + state.square().sum()).backward()
    learned = dict(core.named_parameters())
    assert learned
    assert all(weights.grad is not None and weights.grad.any() for weights in learned.values()), name


@pytest.mark.parametrize("name", CORES)
def test_input_of_another_shape_is_refused(name):
    core = make(name)
    for shape in ((4,), (2, 3), (6, 2, 3), (1, 6, 2, 4)):
        with pytest.raises(ValueError, match=r"x has the shape .* it must be \(batch, 4\)"):
            core(normal(*shape))


# -------------------------------------------------------------------------------------------------- what each core is


@pytest.mark.parametrize("name", ["mpn", "mpn-pre", "mpn-post", "mpn-additive"])
def test_the_variants_have_their_equations(name):
    core = make(name)
    with torch.no_grad():
        core.b.copy_(normal(5, seed=3))
    W, b = core.W.detach().numpy(), core.b.detach().numpy()
    x = normal(6, 1, 4)
    M, activities = np.zeros((5, 4)), []
    for step in x[:, 0].numpy():
        effective = W + M if name == "mpn-additive" else W * (M + 1)
        h = np.tanh(effective @ step + b)
        associated = {
            "mpn-pre": np.outer(np.ones(5), step) / math.sqrt(5),
            "mpn-post": np.outer(h, np.ones(4)) / math.sqrt(4),
        }.get(name, np.outer(h, step))
        M = 0.8 * M + 0.4 * associated
        activities.append(h)
    h, last = core(x)
    # eta and lambda went through float32.
    np.testing.assert_allclose(h[:, 0].detach(), activities, atol=1e-6)
    np.testing.assert_allclose(last[0].detach(), M, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_frozen_modulations_stay_zero_for_all_options(layers):
    core = make("mpn-frozen", layers, eta=3.0, learn_eta=True, learn_lambda=True)
    assert {name.split(".")[-1] for name, _ in core.named_parameters()} == {"W", "b"}
    x = normal(9, 2, 4)
    h, state = core(x)
    assert not state.any()
    wanted = x
    for layer in core.plastic_layers():
        wanted = torch.tanh(wanted @ layer.W.t() + layer.b)
    close(h, wanted)


@pytest.mark.parametrize("eta", [None, 0.05])
def test_a_frozen_network_has_the_weights_of_an_mpn_of_its_seed(eta):
    def drawn(name):
        random = torch.Generator().manual_seed(3)
        core = make_core(name, 4, 5, layers=2, projection=6, generator=random, eta=eta)
        return core.state_dict(), torch.rand(3, generator=random)

    (plastic, after), (frozen, after_frozen) = drawn("mpn"), drawn("mpn-frozen")
    assert torch.equal(after, after_frozen), "what is drawn next, such as a readout, is the same too"
    for name, weights in plastic.items():
        if name.endswith("eta"):
            assert not frozen[name]
        elif name in frozen:
            assert torch.equal(weights, frozen[name]), name


@pytest.mark.parametrize("name", CORES)
def test_only_cores_with_memory_depend_on_past_inputs(name):
    core = make(name)
    x = normal(6, 3, 4)
    other_past = torch.cat([x[:5].flip(0), x[5:]])
    now, then = core(x)[0][-1], core(other_past)[0][-1]
    assert torch.allclose(now, then, atol=1e-12) == (name in ("mlp", "mpn-frozen"))


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_recurrent_controls_equal_torchs_cells(name):
    core = make(name)
    with torch.no_grad():
        for part in core.parameters():
            part.add_(0.3 * normal(*part.shape))
    theirs = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[name](4, 5).double()
    theirs.load_state_dict({key.removesuffix("_l0"): value for key, value in core.network.state_dict().items()})
    x = normal(6, 3, 4)
    h, state = core(x)
    memory = None
    for step in range(6):
        memory = theirs(x[step], memory)
        now = memory[0] if name == "lstm" else memory
        close(h[step], now)
    if name == "lstm":
        close(state[:, 0], memory[0])
        close(state[:, 1], memory[1])
    else:
        close(state, memory)


def test_the_mlp_has_two_relu_layers():
    core = make("mlp")
    first, second = (core.network[layer] for layer in (0, 2))
    x = normal(3, 4)
    hidden = (x @ first.weight.t() + first.bias).clamp(min=0)
    close(core(x)[0], (hidden @ second.weight.t() + second.bias).clamp(min=0))
    assert first.weight.shape == (5, 4)
    assert second.weight.shape == (5, 5)


@pytest.mark.parametrize("name", ["mpn", "lstm"])
def test_each_layer_of_a_stack_reads_the_layer_below(name):
    core = make(name, layers=3)
    x = wanted = normal(5, 2, 4)
    states = []
    for layer in core.layers:
        wanted, state = layer(wanted)
        states.append(state.flatten(1))
    h, state = core(x)
    close(h, wanted)
    close(state, torch.cat(states, dim=1))


@pytest.mark.parametrize("name", ["mpn", "gru"])
def test_the_projection_is_affine_fixed_and_stored(name):
    core = make(name, projection=3)
    A, c = core.state_dict()["A"], core.state_dict()["c"]
    assert (A.shape, c.shape) == ((3, 4), (3,))
    assert not {"A", "c"} & {parameter for parameter, _ in core.named_parameters()}
    x = normal(5, 2, 4)
    close(core(x)[0], core.core(x @ A.t() + c)[0])
    before = copy.deepcopy(core.state_dict())
    optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
    core(x)[0].sum().backward()
    optimizer.step()
    assert torch.equal(core.state_dict()["A"], before["A"])
    assert torch.equal(core.state_dict()["c"], before["c"])
    assert any(not torch.equal(core.state_dict()[key], before[key]) for key in before)


def test_the_projection_has_its_sizes():
    """A is normal with variance 1 / inputs and c with variance 1, so that A x + c is of the size of x."""
    core = make_core("mpn", 50, 4, projection=2000, generator=generator())
    A, c = core.state_dict()["A"], core.state_dict()["c"]
    assert float(A.var() * 50) == pytest.approx(1, abs=0.03)
    assert float(c.var()) == pytest.approx(1, abs=0.15)
    assert abs(float(A.mean())) < 0.005
    assert abs(float(c.mean())) < 0.1


def test_first_weights_are_xavier_uniform_and_first_biases_zero():
    layer = MPN(300, 100, generator=generator())
    bound = math.sqrt(6 / 400)
    W = layer.W.detach()
    assert 0.99 * bound < float(W.abs().max()) <= bound
    assert float(W.var()) == pytest.approx(bound**2 / 3, rel=0.05)
    assert not layer.b.any()


@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrent_weights_are_xavier_uniform_gate_by_gate_and_biases_zero(name, gates):
    core = make_core(name, 200, 100, generator=generator())
    for weights, inputs in ((core.network.weight_ih_l0, 200), (core.network.weight_hh_l0, 100)):
        bound = math.sqrt(6 / (inputs + 100))
        assert weights.shape == (100 * gates, inputs)
        for gate in weights.detach().split(100):
            assert 0.99 * bound < float(gate.abs().max()) <= bound
            assert float(gate.var()) == pytest.approx(bound**2 / 3, rel=0.05)
    assert not core.network.bias_ih_l0.any()
    assert not core.network.bias_hh_l0.any()


# ---------------------------------------------------------------------------------------------------- eta and lambda


@pytest.mark.parametrize("learn_eta", [False, True])
@pytest.mark.parametrize("learn_lambda", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_learned_values_are_parameters_and_all_values_are_stored(learn_eta, learn_lambda, bias):
    layer = MPN(3, 4, learn_eta=learn_eta, learn_lambda=learn_lambda, bias=bias)
    asked = {"W": True, "b": bias, "eta": learn_eta, "lambda_": learn_lambda}
    assert {name for name, _ in layer.named_parameters()} == {name for name, learned in asked.items() if learned}
    assert set(layer.state_dict()) == {"W", "b", "eta", "lambda_"}


@pytest.mark.parametrize(("value", "used"), [(2.0, 0.9), (0.5, 0.5), (-1.0, 0.0)])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_learned_lambda_is_clipped_to_its_bounds(value, used, layers):
    core = make("mpn", layers, learn_lambda=True, lambda_max=0.9)
    with torch.no_grad():
        for layer in core.plastic_layers():
            layer.lambda_.fill_(value)
    # Without input and bias M only fades; in the upper layer h = tanh(0) = 0 as well.
    state = normal(2, *core.state_shape)
    for x in (torch.zeros(2, 4, dtype=torch.float64), torch.zeros(1, 2, 4, dtype=torch.float64)):
        close(core(x, state)[1], used * state, 1e-7)
    core.constrain()
    for layer in core.plastic_layers():
        assert float(layer.lambda_.detach()) == pytest.approx(used, abs=1e-7)


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5])
def test_a_lambda_at_its_bound_can_be_learned_away_from_it(value):
    core = make("mpn", learn_lambda=True, lambda_max=0.9)
    with torch.no_grad():
        core.lambda_.fill_(value)
    core(normal(5, 2, 4))[0].square().sum().backward()
    at_the_bound = make("mpn", learn_lambda=True, lambda_max=0.9)
    with torch.no_grad():
        at_the_bound.lambda_.fill_(min(max(value, 0.0), 0.9))
    at_the_bound(normal(5, 2, 4))[0].square().sum().backward()
    assert core.lambda_.grad != 0
    close(core.lambda_.grad, at_the_bound.lambda_.grad)


def test_only_a_learned_lambda_is_clipped_at_the_start():
    assert float(MPN(2, 3, lambda_decay=1.0, lambda_max=0.9, learn_lambda=True).lambda_.detach()) == pytest.approx(0.9)
    fixed = MPN(2, 3, lambda_decay=1.0, lambda_max=0.9)
    assert float(fixed.lambda_) == float(fixed.decay()) == 1
    fixed.constrain()
    assert float(fixed.lambda_) == 1


def test_gradients_of_eta_and_lambda_equal_finite_differences():
    core = make("mpn", learn_eta=True, learn_lambda=True)
    x = normal(6, 2, 4)
    core(x)[0].square().sum().backward()
    for parameter in (core.eta, core.lambda_):
        sides = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += shift
                sides.append(float(core(x)[0].square().sum()))
                parameter -= shift
        assert float(parameter.grad) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)


def test_eta_none_is_drawn_as_published():
    drawn = [float(MPN(1, 1, eta=None, generator=generator(seed)).eta) for seed in range(400)]
    assert pytest.approx(math.sqrt(3)) == LARGEST_FIRST_ETA
    assert all(abs(eta) <= math.sqrt(3) for eta in drawn)
    assert np.mean(drawn) == pytest.approx(0, abs=0.2)
    # Uniform on [-sqrt(3), sqrt(3)] has variance 1.
    assert np.var(drawn) == pytest.approx(1, abs=0.15)


# ----------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_decay": 1.5}, "lambda_decay is 1.5"),
        ({"lambda_decay": -0.1}, "lambda_decay is -0.1"),
        ({"lambda_decay": math.nan}, "lambda_decay is nan"),
        ({"lambda_max": 1.01}, "lambda_max is 1.01"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"bound": math.nan}, "bound is nan"),
        ({"activation": "elu"}, "activation is 'elu'; it must be one of tanh, relu, sigmoid, linear"),
        ({"plasticity": "anti"}, "plasticity is 'anti'; it must be one of hebbian, pre, post"),
        ({"interaction": "divisive"}, "interaction is 'divisive'; it must be one of multiplicative, additive"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    for build in (lambda: MPN(3, 4, **arguments), lambda: MPNDQN(3, 4, 2, **arguments)):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            build()


def test_an_unknown_core_is_refused_with_a_list_of_all_cores():
    with pytest.raises(ValueError, match=r"there is no core 'mpm'; choose one of mpn, mpn-pre"):
        make_core("mpm", 3, 4)


@pytest.mark.parametrize("name", ["mpn", "gru", "mlp"])
@pytest.mark.parametrize("argument", ["layers", "projection"])
def test_an_invalid_count_is_named(name, argument):
    with pytest.raises(ValueError, match=argument):
        make_core(name, 3, 4, **{argument: -1})


@pytest.mark.parametrize("name", ["mpn", "gru", "mlp"])
def test_a_core_has_at_least_one_layer(name):
    with pytest.raises(ValueError, match="layers"):
        make_core(name, 3, 4, layers=0)


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("core", ["mpn", "lstm", "mlp"])
def test_q_values_are_linear_in_the_activity(core):
    network = MPNDQN(4, 5, 3, core=core, layers=2, projection=3, generator=generator()).double()
    x, starts = normal(6, 2, 4), torch.zeros(6, 2, dtype=torch.bool)
    starts[3, 0] = True
    h, last = network.core(x, None, starts)
    q, state = network(x, None, starts)
    close(q, h @ network.head.weight.t() + network.head.bias)
    close(state, last)


def test_actor_and_critic_read_a_layer_of_relu():
    network = ActorCritic(4, 5, 3, core="mpn", head_dim=7, generator=generator()).double()
    x = normal(6, 2, 4)
    h = network.core(x)[0]
    features = (h @ network.trunk[0].weight.t() + network.trunk[0].bias).clamp(min=0)
    (logits, values), _ = network(x)
    assert features.shape == (6, 2, 7)
    close(logits, features @ network.actor.weight.t() + network.actor.bias)
    close(values, (features @ network.critic.weight.t() + network.critic.bias)[..., 0])


@pytest.mark.parametrize("bias", [False, True])
def test_the_bias_of_the_readout_is_optional(bias):
    network = Readout(4, 5, 2, readout_bias=bias, generator=generator()).double()
    x = normal(6, 2, 4)
    wanted = network.core(x)[0] @ network.head.weight.t()
    if bias:
        with torch.no_grad():
            network.head.bias.copy_(normal(2, seed=1))
        wanted = wanted + network.head.bias
    close(network(x)[0], wanted)
    assert (network.head.bias is not None) == bias


@pytest.mark.parametrize("made", [MPNDQN, ActorCritic, Readout])
@pytest.mark.parametrize("core", ["mpn", "gru", "mlp"])
def test_observe_is_one_step_and_returns_the_activity(made, core):
    network = made(4, 5, 2, core=core, generator=generator()).double()
    x, state = normal(3, 4), normal(3, *network.core.state_shape)
    said, h, new = network.observe(x, state)
    wanted, wanted_state = network(x, state)
    close(said, wanted[0] if made is ActorCritic else wanted)
    close(new, wanted_state)
    close(h, network.core(x, state)[0])
    assert torch.equal(network.observe(x)[0], network.observe(x, network.init_state(3))[0])


# ----------------------------------------------------------------------------------------------------------- choosing


def test_without_exploration_the_best_action_is_chosen():
    network = MPNDQN(4, 8, 3, generator=generator())
    obs, state = torch.randn(50, 4, generator=generator(1)), torch.randn(50, 8, 4, generator=generator(2))
    actions, new = network.select_action(obs, state, epsilon=0.0)
    q, wanted = network(obs, state)
    assert actions.tolist() == [max(range(3), key=row.__getitem__) for row in q.tolist()]
    assert len(set(actions.tolist())) == 3, "so that the test can tell"
    assert torch.equal(new, wanted)
    assert not new.requires_grad
    for sample in range(5):
        action, _ = network.select_action(obs[sample : sample + 1], state[sample : sample + 1])
        assert type(action) is int
        assert action == actions[sample]


@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_exploration_is_uniform_and_has_probability_epsilon(epsilon):
    network = MPNDQN(4, 8, 3, generator=generator())
    obs, count = torch.ones(1, 4).expand(6000, -1), 6000
    state = network.init_state(count)
    actions, new = network.select_action(obs, state, epsilon=epsilon, generator=generator(3))
    assert actions.shape == (count,)
    best = int(network(obs[:1], state[:1])[0].argmax())
    frequencies = torch.bincount(actions, minlength=3) / count
    wanted = torch.full((3,), epsilon / 3)
    wanted[best] += 1 - epsilon
    # Four standard deviations of a frequency among 6000.
    torch.testing.assert_close(frequencies, wanted, rtol=0, atol=4 * math.sqrt(0.25 / count))
    close(new, network(obs, state)[1].detach(), 1e-6)
    again, _ = network.select_action(obs, state, epsilon=epsilon, generator=generator(3))
    assert torch.equal(again, actions)


def test_the_activation_reaches_the_layer():
    x = normal(2, 4)
    for name, f in {"relu": functional.relu, "sigmoid": torch.sigmoid, "linear": lambda a: a}.items():
        core = make("mpn", activation=name)
        close(core(x)[0], f(x @ core.W.t() + core.b))


@pytest.mark.parametrize(("sizes", "name"), [((3, 0), "hidden_dim is 0"), ((0, 3), "input_dim is 0")])
def test_a_layer_without_units_or_inputs_is_refused(sizes, name):
    with pytest.raises(ValueError, match=name):
        MPN(*sizes)


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("shape", [(4,), (7, 4)])
def test_a_state_of_another_batch_is_refused(name, shape):
    core = make(name)
    for batch in (1, 2, 4):
        x = normal(*shape[:-1], 3, 4)
        with pytest.raises(ValueError, match=r"the state has the shape .* init_state\(3\)"):
            core(x, core.init_state(batch))
    assert core(normal(*shape[:-1], 3, 4), core.init_state(3))[0].shape == (*shape[:-1], 3, 5)


def test_a_state_of_another_core_is_refused():
    with pytest.raises(ValueError, match="the state has the shape"):
        make("gru")(normal(3, 4), make("mpn").init_state(3))


def test_an_action_can_be_chosen_for_a_single_observation():
    network = MPNDQN(4, 5, 2, generator=generator(), eta=0.4)
    seen = normal(4, seed=1).numpy()
    state = torch.rand(1, 5, 4, generator=generator(1))
    wanted, after = network.select_action(torch.from_numpy(seen).float().unsqueeze(0), state)
    for observation in (seen, seen.astype(np.float32), seen[None]):
        action, new = network.select_action(observation, state)
        assert action == wanted
        assert isinstance(action, int)
        assert torch.equal(new, after)
