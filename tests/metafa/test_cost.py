"""What meta-learning costs, counted by hand on a small network."""

import pytest

from plastic_cli.analysis.cost import cost_of
from plastic_cli.runs.record import RunRecord

# Images of 2 x 3 pixels, 6 numbers, in 3 classes. The network 6-5-4-3 has 30 + 20 + 12 = 62 weights and no biases.
DATA = {"image_shape": [1, 2, 3], "classes": 3}


def price(episodes=4, batch_size=1, **options):
    """Of episodes with 2 classes, 5 training images and 3 queries of each."""
    config = {"hidden": [5, 4], "ways": 2, "shots": 5, "queries": 3, "held_out_classes": 0, "terms": (0,)}
    config |= {"episodes": episodes, "batch_size": batch_size, **options}
    samples = episodes * batch_size * 10
    found = cost_of(RunRecord("run", "metafa", 0, config, status="completed", data=DATA, speed={"samples": samples}))
    assert found is not None
    return found


def test_the_pseudo_gradient_with_fixed_feedback():
    cost = price()
    assert cost.samples == 40
    assert cost.inference_flops == 40 * 2 * 62
    # A sample: errors through layers 2 and 3, a change of each weight. Back: the response by W and, in layers 2 and 3,
    # by their input; the errors; both factors of each change.
    sample = (32 + 62) + (62 + 32) + 32 + 2 * 62
    # A query: a prediction, and the gradient of all weights.
    query = 62 + 62 + 32
    assert cost.learning_flops == 40 * 2 * sample + 4 * 6 * 2 * query
    assert cost.messages == 40 * (4 + 3)
    assert cost.updates == 40 * 62
    # Weights, feedback of layers 2 and 3, one strength and its two moments.
    assert cost.state_bytes == 4 * (62 + 32 + 3)
    # Activity and errors of 18 units for 10 samples, inputs and responses of 6 queries, and the gradient of 62 weights.
    assert cost.step_bytes == 4 * (10 * 2 * 18 + 6 * (11 + 9 + 7) + 62)


@pytest.mark.parametrize(
    ("feedback", "errors", "stored", "messages"),
    [("fixed", 32, 32, 7), ("sign", 32, 32, 7), ("symmetric", 32, 0, 7), ("direct", 15 + 12, 15 + 12, 6)],
)
def test_kinds_of_feedback(feedback, errors, stored, messages):
    cost = price(feedback=feedback)
    again = 2 if feedback == "symmetric" else 1
    sample = (errors + 62) + (62 + 32) + again * errors + 2 * 62
    assert cost.learning_flops == 40 * 2 * sample + 4 * 6 * 2 * (62 + 62 + 32)
    assert cost.state_bytes == 4 * (62 + stored + 3)
    assert cost.messages == 40 * messages


def test_the_published_terms_use_the_errors_below():
    cost = price(terms=(0, 2, 9))
    # Products with y_pre and with e_pre, and the two of the second factor of Oja's rule; the error of the pixels.
    sample = (62 + 4 * 62) + (62 + 32) + 62 + 2 * 4 * 62
    assert cost.learning_flops == 40 * 2 * sample + 4 * 6 * 2 * (62 + 62 + 32)
    assert cost.state_bytes == 4 * (62 + 62 + 9)


def test_outputs_of_an_episode_and_images_of_another_size():
    assert price(outputs="episode").inference_flops == 40 * 2 * (30 + 20 + 8)
    assert price(image_size=4).inference_flops == 40 * 2 * (80 + 20 + 12)


def test_parallel_episodes_have_networks_of_their_own():
    one, three = price(), price(batch_size=3)
    for name in ("samples", "inference_flops", "learning_flops", "messages", "updates", "step_bytes"):
        assert getattr(three, name) == 3 * getattr(one, name)
    assert three.state_bytes == 4 * (3 * (62 + 32) + 3)


def test_a_term_of_your_own_has_no_price():
    config = {"terms": ["my_terms:decay"]}
    run = RunRecord("run", "metafa", 0, config, status="completed", data=DATA, speed={"samples": 20})
    assert cost_of(run) is None
