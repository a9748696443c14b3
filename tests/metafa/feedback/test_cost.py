"""What feedback costs, counted by hand on small networks and compared with the operations that torch counts."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from plastic_cli.analysis.cost import cost_of, step_cost
from plastic_cli.analysis.shapes import SAMPLES, shape_of
from plastic_cli.runs.record import RunRecord
from plastic_metafa import RandomFeedback
from plastic_metafa.cost import error_flops, feedback_numbers, term_flops

# Images of 2 x 3 pixels, 6 numbers, in 3 classes. The network 6-5-4-3 has 30 + 20 + 12 = 62 weights and 12 biases.
DATA = {"image_shape": [1, 2, 3], "classes": 3}
KINDS = ["fixed", "direct", "sign", "uniform-sign", "batchwise-sign", "kolen-pollack", "weight-mirror", "symmetric"]


def price(**options):
    """Of 2 epochs of 14 images in batches of 4, which are 8 steps."""
    config = {"hidden": [5, 4], "epochs": 2, "batch_size": 4, **options}
    found = cost_of(RunRecord("run", "feedback", 0, config, status="completed", data=DATA, speed={"samples": 28}))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("direct", "weight-mirror")])
def test_feedback_costs_as_much_as_the_gradient(kind):
    cost = price(feedback=kind)
    assert cost.inference_flops == 28 * 2 * 62
    assert cost.learning_flops == 28 * 2 * (62 + 20 + 12)
    # The errors of 4 units, and of 3 units.
    assert cost.messages == 28 * (4 + 3)
    # Feedback weights of layers 2 and 3 change as the weights do.
    assert cost.updates == 8 * (62 + (20 + 12 if kind == "kolen-pollack" else 0))


def test_direct_feedback_sends_the_error_of_the_output_to_each_layer():
    cost = price(feedback="direct")
    # Through 3 x 5 and 3 x 4 feedback weights to the inputs of layers 2 and 3.
    assert cost.learning_flops == 28 * 2 * (62 + 15 + 12)
    assert cost.messages == 28 * 2 * 3
    assert cost.updates == 8 * 62, "its weights do not change"


def test_a_weight_mirror_shows_16_vectors_of_noise_in_each_step():
    cost = price(feedback="weight-mirror")
    assert cost.learning_flops == 28 * 2 * (62 + 32) + 8 * 16 * (2 * 32 + 2 * 32)
    assert cost.messages == 28 * (4 + 3)
    assert cost.updates == 8 * (62 + 32)
    assert price(feedback="weight-mirror", mirror_rate=0.0).updates == 8 * 62


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("symmetric", 0),
        ("uniform-sign", 0),
        ("batchwise-sign", 0),
        ("fixed", 32),
        ("sign", 32),
        ("kolen-pollack", 32),
        ("weight-mirror", 32),
        ("direct", 15 + 12),
    ],
)
def test_feedback_weights_are_stored_where_they_carry_an_error(kind, stored):
    cost = price(feedback=kind, optimizer="adam")
    assert cost.state_bytes == 4 * (3 * 74 + stored)
    drawn = 32 if kind == "batchwise-sign" else 0
    assert cost.step_bytes == 4 * (4 * (11 + 9 + 7) + 74 + drawn)


@pytest.mark.parametrize(
    ("terms", "products"), [((0,), 1), ((0, 2), 2), ((0, 9), 3), ((0, 2, 9), 4), ((0, 6), 3), ((0, 3, 5), 1), ((8,), 2)]
)
def test_terms_add_products_of_the_size_of_the_layer(terms, products):
    cost = price(terms=terms, theta=",".join(["0.1"] * len(terms)))
    # A term that uses the error below also needs that of the image.
    errors = 62 if set(terms) & {1, 2, 4, 6, 7, 8} else 32
    assert cost.learning_flops == 28 * 2 * (products * 62 + errors)


def test_terms_that_only_a_file_names_have_no_price():
    run = RunRecord(
        "run", "feedback", 0, {"theta": "learned.toml"}, status="completed", data=DATA, speed={"samples": 20}
    )
    assert cost_of(run) is None


def test_the_network_of_metafa_has_no_biases():
    cost = price(activation="softplus", hidden=[5, 4])
    assert cost.state_bytes == 4 * (62 + 32)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.fc = (
            nn.Linear(3, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        h = self.embed(x.unflatten(1, (-1, 3)))
        return self.fc(self.attention(h, h, h)[0].mean(1))


def convolutional():
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)),
    )


@pytest.mark.parametrize("make", [Attention, convolutional])
@pytest.mark.parametrize("kind", ["fixed", "direct", "sign", "kolen-pollack", "symmetric"])
def test_shapes_on_the_meta_device_say_what_torch_counts(make, kind):
    torch.manual_seed(0)
    model, batch = make(), 4
    x, y = torch.randn(batch, 36), torch.arange(batch) % 3
    counted = step_cost(
        RandomFeedback(model, kind), model, x, lambda output: functional.cross_entropy(output, y, reduction="none")
    )
    with torch.device("meta"):
        shape = shape_of(make(), torch.zeros(SAMPLES, 36))
    others = shape.gradient_flops - sum(layer.flops for layer in shape.layers) - shape.error_flops
    changes = sum(term_flops(layer, (0,)) for layer in shape.layers)
    assert counted.forward == batch * shape.forward_flops
    assert counted.learning == batch * (others + changes + error_flops(shape, kind, (0,)))
    rule = RandomFeedback(model, kind)
    rule.backward(x, lambda output: functional.cross_entropy(output, y, reduction="none"))
    stored = rule.state_dict()["feedback"]
    first = next(name for name, value in model.named_parameters() if value.ndim > 1)
    needed = sum(value.numel() for name, value in stored.items() if name != first)
    assert feedback_numbers(shape, kind) == needed
