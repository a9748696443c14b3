"""What credit rules observe of a module: products of weights, and the parts of recurrent layers and attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from credit.networks import EVERY, Case, Recurrent, gradient_of, losses_of
from plastic_cli import UserError
from plastic_cli.credit.gradient import Gradient, rest_credit
from plastic_cli.credit.interception import Interception
from plastic_cli.credit.parameters import accumulate, others, taught
from plastic_cli.credit.passes import BeforePass
from plastic_cli.credit.products import Product, product_of
from plastic_cli.credit.protocol import Credit, call, checked_losses
from plastic_cli.credit.recording import record


class Products(Interception):
    """Collects the products whose weight is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Product, Tensor]] = []

    def handle(self, function, args, kwargs):
        result = function(*args, **kwargs)
        product = product_of(function, args, kwargs)
        if product is not None and isinstance(product.weight, nn.Parameter):
            self.found.append((product, result))
        return result


def outputs(value):
    return [value] if isinstance(value, Tensor) else [part for parts in value for part in outputs(parts)]


LAYERS = {
    "gru": (lambda: nn.GRU(4, 5, 2, bidirectional=True), [(3, 2, 4)]),
    "gru-state": (lambda: nn.GRU(4, 5, batch_first=True, bias=False), [(2, 3, 4), (1, 2, 5)]),
    "lstm": (lambda: nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), [(2, 3, 4)]),
    "lstm-dropout": (lambda: nn.LSTM(4, 5, 2, proj_size=3, bidirectional=True, dropout=0.5), [(3, 2, 4)]),
    "lstm-projected": (lambda: nn.LSTM(4, 5, 2, proj_size=3), [(3, 2, 4)]),
    "rnn-relu": (lambda: nn.RNN(4, 5, nonlinearity="relu", bidirectional=True), [(3, 2, 4)]),
    "gru-cell": (lambda: nn.GRUCell(4, 5), [(3, 4)]),
    "lstm-cell": (lambda: nn.LSTMCell(4, 5, bias=False), [(3, 4)]),
    "rnn-cell": (lambda: nn.RNNCell(4, 5), [(3, 4)]),
    "attention": (lambda: nn.MultiheadAttention(8, 2), [(5, 2, 8), (4, 2, 8), (4, 2, 8)]),
    "attention-separate": (lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6), [(5, 2, 8), (4, 2, 4), (4, 2, 6)]),
    "attention-unbatched": (lambda: nn.MultiheadAttention(8, 4, bias=False), [(5, 8), (4, 8), (4, 8)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_parts_of_a_layer_give_its_output_and_its_gradient(name):
    make, shapes = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    found = []
    for mode in (Products(), None):
        layer.zero_grad()
        torch.manual_seed(1)
        if mode is None:
            results = outputs(layer(*inputs))
        else:
            with mode:
                results = outputs(layer(*inputs))
        loss = sum((part * torch.arange(part.numel()).view_as(part).sin()).sum() for part in results)
        gradients = torch.autograd.grad(loss, [*inputs, *layer.parameters()])
        found.append([part.detach() for part in (*results, *gradients)])
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_layer_with_masks_gives_the_output_of_torch(training):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True).double().train(training)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    torch.manual_seed(1)
    expected = layer(x, src_mask=causal, src_key_padding_mask=padding)
    torch.manual_seed(1)
    with Products() as products:
        found = layer(x, src_mask=causal, src_key_padding_mask=padding)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert len(products.found) == 4


@pytest.mark.parametrize(
    ("layer", "inputs", "words"),
    [
        (nn.GRU(2, 3), nn.utils.rnn.pack_sequence([torch.randn(3, 2), torch.randn(2, 2)]), "packed sequences"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), (torch.randn(3, 1, 4),) * 3, "add_bias_kv"),
    ],
)
def test_what_cannot_be_taken_apart_is_named_with_what_to_do(layer, inputs, words):
    with pytest.raises(UserError, match=words) as error, Products():
        layer(*inputs) if type(inputs) is tuple else layer(inputs)
    assert "modules=" in str(error.value)


@pytest.mark.parametrize("name", EVERY)
def test_derivatives_of_products_equal_autograd(name):
    """Closed forms for linear maps and convolutions, of every network and option."""
    model, x, _ = EVERY[name].draw()
    with torch.no_grad(), Products() as products:
        call(model, x)
    assert products.found
    generator = torch.Generator().manual_seed(0)
    for product, z in products.found:
        error = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        other = torch.randn(product.weight.shape, generator=generator, dtype=z.dtype)
        of_x, of_weight, of_bias = product.gradients(error, other)
        own = product.weight.detach().requires_grad_()
        bias = None if product.bias is None else product.bias.detach().requires_grad_()
        again = product.apply(product.x, own, bias)
        torch.testing.assert_close(again, z)
        expected = torch.autograd.grad(again, [own, *([] if bias is None else [bias])], error)
        torch.testing.assert_close(of_weight, expected[0])
        if bias is not None:
            torch.testing.assert_close(of_bias, expected[1])
        if product.x.is_floating_point():
            leaf = product.x.detach().requires_grad_()
            (through_other,) = torch.autograd.grad(product.apply(leaf, other), leaf, error)
            torch.testing.assert_close(of_x, through_other)
        assert product.gradients(error, other, (False, True, False))[::2] == (None, None)


@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "valid", "same", (2,)]),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    batched=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_derivatives_of_convolutions_equal_autograd_for_all_options(kernel, stride, padding, dilation, groups, batched):
    torch.manual_seed(0)
    stride = 1 if padding == "same" else stride
    layer = nn.Conv1d(4, 6, kernel, stride, padding, dilation, groups).double()
    x = torch.randn((2, 4, 9) if batched else (4, 9), dtype=torch.float64, requires_grad=True)
    with Products() as products:
        z = layer(x)
    ((product, _),) = products.found
    error = torch.randn_like(z)
    expected = torch.autograd.grad(z, [x, layer.weight, layer.bias], error)
    for mine, autograds in zip(product.gradients(error, layer.weight), expected, strict=True):
        torch.testing.assert_close(mine, autograds)


@pytest.mark.parametrize("name", EVERY)
def test_a_recording_changes_no_output_and_names_every_weight(name):
    model, x, _ = EVERY[name].draw()
    model.eval()
    output, uses = record(model, x)
    torch.testing.assert_close(output, call(model, x).detach(), rtol=1e-10, atol=1e-12)
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1} - {"position"}
    assert {use.name for use in uses} == matrices
    for use in uses:
        assert use.y.shape == use.z.shape == use.slope.shape
        torch.testing.assert_close(use.z, use.product.apply(use.x, use.product.weight, use.product.bias))


def test_activity_is_the_output_of_the_nonlinearity_behind_normalization_and_residual():
    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = functional.relu(self.norm(self.a(x)), inplace=True)
            out = self.b(h)
            out += x
            return torch.tanh_(out)

    model, x = Residual().double(), torch.randn(5, 4, dtype=torch.float64)
    output, (first, second) = record(model, x)
    normalized = functional.batch_norm(functional.linear(x, model.a.weight, model.a.bias), None, None, training=True)
    torch.testing.assert_close(first.y, torch.relu(normalized).detach())
    torch.testing.assert_close(first.slope, (normalized > 0).double())
    torch.testing.assert_close(first.z, functional.linear(x, model.a.weight, model.a.bias).detach())
    torch.testing.assert_close(second.z, functional.linear(first.y, model.b.weight, model.b.bias).detach())
    torch.testing.assert_close(second.y, output)
    torch.testing.assert_close(second.slope, 1 - output**2)


def test_the_gates_of_an_lstm_have_their_own_activity():
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    _, (of_input, of_state) = record(cell, x)
    gates = of_input.z + of_state.z
    i, f, g, o = gates.chunk(4, 1)
    expected = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)
    torch.testing.assert_close(of_input.y, expected)
    torch.testing.assert_close(of_state.y, expected)
    slope = torch.cat([*(p.sigmoid() * (1 - p.sigmoid()) for p in (i, f)), 1 - g.tanh() ** 2], 1)
    torch.testing.assert_close(of_input.slope[:, :6], slope)


class Cell(nn.Module):
    """A hand-written gate: one linear map, cut into parts in several ways."""

    def __init__(self, cut) -> None:
        super().__init__()
        self.map, self.cut = nn.Linear(3, 6), cut

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.cut(self.map(x))
        return torch.sigmoid(gate) * torch.tanh(value)


@pytest.mark.parametrize(
    "cut",
    [
        lambda z: z.chunk(2, 1),
        lambda z: (z[:, :3], z[:, 3:]),
        lambda z: (z.narrow(1, 0, 3), z[..., -3:]),
        lambda z: z.reshape(-1, 2, 3).unbind(1),
        lambda z: z.unflatten(1, (2, 3)).transpose(0, 1),
    ],
)
def test_hand_written_gates_have_the_activity_of_their_parts(cut):
    torch.manual_seed(0)
    model, x = Cell(cut).double(), torch.randn(4, 3, dtype=torch.float64)
    _, (use,) = record(model, x)
    z = model.map(x).detach()
    torch.testing.assert_close(use.y, torch.cat([torch.sigmoid(z[:, :3]), torch.tanh(z[:, 3:])], 1))
    slope = torch.cat([torch.sigmoid(z[:, :3]) * (1 - torch.sigmoid(z[:, :3])), 1 - torch.tanh(z[:, 3:]) ** 2], 1)
    torch.testing.assert_close(use.slope, slope)


def test_an_index_of_numbers_keeps_the_places_in_the_response():
    model, x = Cell(lambda z: (z[:, torch.tensor([0, 2, 0])], z[:, 3:])), torch.randn(4, 3)
    _, (use,) = record(model, x)
    expected = use.z.clone()
    expected[:, [0, 2]], expected[:, 3:] = torch.sigmoid(use.z[:, [0, 2]]), torch.tanh(use.z[:, 3:])
    torch.testing.assert_close(use.y, expected)


def test_only_the_first_nonlinearity_in_place_is_the_activity():
    def cut(z: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = z.chunk(2, 1)
        torch.sigmoid_(gate)
        torch.tanh_(gate)
        return gate, value

    torch.manual_seed(0)
    model, x = Cell(cut).double(), torch.randn(4, 3, dtype=torch.float64)
    _, (use,) = record(model, x)
    z = model.map(x).detach()
    torch.testing.assert_close(use.y, torch.cat([torch.sigmoid(z[:, :3]), torch.tanh(z[:, 3:])], 1))


def test_what_is_changed_in_place_later_is_recorded_as_it_was():
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            out = self.b(h)
            h[:, 0] = 7.0
            out *= 2
            return h + out

    torch.manual_seed(0)
    model, x = Changing().double(), torch.randn(4, 3, dtype=torch.float64)
    _, (first, second) = record(model, x)
    torch.testing.assert_close(first.y, torch.tanh(model.a(x)).detach())
    torch.testing.assert_close(second.x, first.y)
    torch.testing.assert_close(second.z, model.b(first.y).detach())


def test_an_addition_that_broadcasts_ends_the_smaller_response():
    class Context(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.of_all = nn.Linear(3, 5), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.own(x) + self.of_all(x.mean(0, keepdim=True)))

    model, x = Context().double(), torch.randn(4, 3, dtype=torch.float64)
    output, (own, of_all) = record(model, x)
    torch.testing.assert_close(own.y, output)
    torch.testing.assert_close(of_all.y, of_all.z)
    assert torch.equal(of_all.slope, torch.ones_like(of_all.z))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_max_pooling_before_a_nonlinearity_is_left_out(memory_format):
    """The order of PyTorch's example of MNIST: a nonlinearity that does not decrease acts before or after a maximum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)).to(memory_format=memory_format)
    x = torch.randn(3, 2, 6, 6).to(memory_format=memory_format)
    output, (use,) = record(model, x)
    torch.testing.assert_close(use.y, torch.relu(use.z))
    torch.testing.assert_close(use.slope, (use.z > 0).float())
    torch.testing.assert_close(functional.max_pool2d(use.y, 2), output)


def test_a_compiled_module_is_observed_and_stays_compiled():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    output, uses = record(compiled, x)
    assert [use.name for use in uses] == ["0.weight", "2.weight"]
    torch.testing.assert_close(output, model(x).detach())
    model[0].compile(backend="eager")
    assert [use.name for use in record(model, x)[1]] == ["0.weight", "2.weight"]
    with pytest.raises(ZeroDivisionError), Products():
        raise ZeroDivisionError
    torch.testing.assert_close(compiled(x), output)


def test_a_pass_can_be_repeated_with_the_same_random_numbers_and_statistics():
    model, x = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()), torch.randn(5, 3)
    before = BeforePass.of(model)
    first, tracked = model(x), model[0].num_batches_tracked.clone()
    mean = model[0].running_mean.clone()
    before.restore()
    assert torch.equal(model(x), first)
    assert torch.equal(model[0].num_batches_tracked, tracked)
    assert torch.equal(model[0].running_mean, mean)


def test_parameters_are_chosen_by_module_and_pattern():
    model = EVERY["resnet18"].draw()[0]
    assert set(taught(model, "fc")) == {"fc.weight", "fc.bias"}
    assert set(taught(model, ["layer1.0", "conv1"])) == {
        name for name in dict(model.named_parameters()) if name.startswith(("layer1.0.", "conv1."))
    }
    assert set(taught(model, "layer?.1.conv2")) == {f"layer{number}.1.conv2.weight" for number in range(1, 5)}
    everything = taught(model)
    assert set(everything) == set(dict(model.named_parameters()))
    assert set(others(model, taught(model, "fc"))) == set(everything) - {"fc.weight", "fc.bias"}
    model.conv1.requires_grad_(False)
    assert "conv1.weight" not in taught(model)


def test_names_do_not_depend_on_wrappers():
    model = EVERY["mlp"].draw()[0]
    wrapped = nn.DataParallel(model)
    assert set(taught(wrapped)) == set(taught(model))
    assert set(taught(wrapped, "0")) == set(taught(wrapped, "module.0")) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: taught(model, "fx"), "no module 'fx'.*Did you mean"),
        (lambda model: taught(model.requires_grad_(False)), "nothing to teach"),
        (lambda model: taught(type(model)), "the class ResNet"),
        (lambda model: taught(model.forward), "a method"),
        (lambda model: rest_credit(model, taught(model, "fc"), "all"), "rest is 'all'"),
        (lambda model: rest_credit(model, taught(model, "fc"), Gradient(model)), "both rules teach 'fc"),
        (lambda model: checked_losses(torch.zeros(())), "shape .*batch"),
        (lambda model: checked_losses(3.0), "float"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(make, words):
    with pytest.raises(UserError, match=words) as error:
        make(EVERY["resnet18"].draw()[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_as_a_credit_rule_equals_autograd(name):
    case: Case = EVERY[name]
    model, x, y = case.draw()
    expected = gradient_of(model, x, y)
    credit = Gradient(model)
    assert isinstance(credit, Credit)
    losses = credit.backward(x, losses_of(y))
    assert losses.shape == (case.batch,)
    assert not losses.requires_grad
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key])


def test_gradients_accumulate_and_only_where_taught():
    model, x, y = EVERY["mlp"].draw()
    expected = gradient_of(model, x, y)
    credit = Gradient(model, "2")
    credit.backward(x, losses_of(y))
    credit.backward(x, losses_of(y))
    torch.testing.assert_close(model[2].weight.grad, 2 * expected["2.weight"])
    assert model[0].weight.grad is None
    credit.detach()
    with pytest.raises(UserError, match="detached"):
        credit.backward(x, losses_of(y))


def test_a_layer_that_is_frozen_later_learns_no_more():
    model, x, y = EVERY["mlp"].draw()
    credit = Gradient(model)
    model[0].requires_grad_(False)
    credit.backward(x, losses_of(y))
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None
    model.requires_grad_(False)
    assert credit.backward(x, losses_of(y)).shape == (4,)


def test_parameters_that_were_replaced_are_named():
    model, x, y = EVERY["mlp"].draw()
    credit = Gradient(model)
    model.load_state_dict(EVERY["mlp"].draw(seed=1)[0].state_dict(), assign=True)
    with pytest.raises(UserError, match=r"'0\.weight' of the module was replaced"):
        credit.backward(x, losses_of(y))


def test_two_parameters_never_share_one_gradient():
    """Autograd gives one tensor to both terms of a sum."""
    pair = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    for _ in range(2):
        for parameter, gradient in zip(pair, torch.autograd.grad((pair[0] + pair[1]).sum(), pair), strict=True):
            accumulate(parameter, gradient)
    assert pair[0].grad.data_ptr() != pair[1].grad.data_ptr()
    assert [parameter.grad.tolist() for parameter in pair] == [[2.0, 2.0], [2.0, 2.0]]


def test_accumulated_gradients_have_the_type_of_the_parameter_and_memory_of_their_own():
    parameter = nn.Parameter(torch.zeros(2, 2))
    source = torch.ones(4, 2, dtype=torch.float64)
    accumulate(parameter, source[:2])
    accumulate(parameter, source[:2])
    assert parameter.grad.dtype == torch.float32
    assert source.unique().tolist() == [1.0]
    torch.testing.assert_close(parameter.grad, torch.full((2, 2), 2.0))


def test_inputs_may_be_positional_or_named():
    layer = Recurrent(nn.GRU(3, 6, batch_first=True), 6)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(call(layer, (x,)), call(layer, {"x": x}))
    torch.testing.assert_close(call(layer, x), layer(x))
