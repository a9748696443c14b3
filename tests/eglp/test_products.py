"""The product that changes weights: its value, its bits, and where oneDNN computes it."""

import pytest
import torch

from plastic_eglp import LocalLinear, products


@pytest.fixture(autouse=True)
def _tries_again():
    trial = products._has_same_bits
    trial.cache_clear()
    yield
    trial.cache_clear()


def draw(seed, *shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


SIZES = [(1, 3, 5), (128, 256, 784), (128, 784, 256), (193, 300, 400), (383, 130, 200), (500, 128, 256)]


@pytest.mark.parametrize(("n", "out", "inputs"), SIZES)
def test_the_sum_over_stimuli_in_double_precision(n, out, inputs):
    target, post, x = draw(n, (out, inputs), (n, out), (n, inputs))
    expected = target.double() + 0.3 * torch.einsum("no,ni->oi", post.double(), x.double())
    products.add_products(target, post, x, 0.3)
    torch.testing.assert_close(target.double(), expected, rtol=1e-5, atol=1e-5 * n**0.5)


@pytest.mark.parametrize(("n", "out", "inputs"), SIZES[1:])
@pytest.mark.parametrize("scale", [1.0, 0.05 / 128, -0.3])
def test_onednn_gives_the_bits_of_the_default(n, out, inputs, scale):
    if not products._has_same_bits(out, inputs, torch.get_num_threads()):
        pytest.skip("oneDNN is not used on this machine")
    target, post, x = draw(n + 1, (out, inputs), (n, out), (n, inputs))
    expected = target.addmm(post.T, x, alpha=scale)
    products._add_products(target, post, x, scale)
    assert torch.equal(target, expected)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_bits_are_those_of_the_default_with_any_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # With four threads MKL computes the last columns of 100 in another order.
        target, post, x = draw(5, (512, 100), (128, 512), (128, 100))
        expected = target.addmm(post.T, x, alpha=0.3)
        products.add_products(target, post, x, 0.3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(target, expected)


def test_views_give_what_their_copies_give():
    target, post, wide = draw(2, (256, 300), (384, 256), (384, 600))
    for x, p in [(wide[:, ::2], post), (wide[:, 7:307], post), (wide[::3, 300:], post[::3]), (wide.T[:300].T, post)]:
        expected = target.addmm(p.T.contiguous(), x.contiguous(), alpha=0.2)
        found = target.clone()
        products.add_products(found, p, x, 0.2)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", ["other bits", "no operation", "no AVX-512"])
def test_the_default_remains_where_onednn_does_not_give_its_bits(wrong, monkeypatch):
    target, post, x = draw(3, (256, 784), (128, 256), (128, 784))
    expected = target.addmm(post.T, x, alpha=0.1)
    if wrong == "no AVX-512":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    else:

        def add_products(target, post, x, scale):
            if wrong == "no operation":
                raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
            target += scale * (post.T.double() @ x.double()).float()

        monkeypatch.setattr(products, "_add_products", add_products)
    assert not products._has_same_bits(256, 784, torch.get_num_threads())
    products.add_products(target, post, x, 0.1)
    assert torch.equal(target, expected)


@pytest.mark.parametrize(
    ("dtype", "n", "faster"), [(torch.float32, 128, True), (torch.float64, 128, False), (torch.float32, 15, False)]
)
def test_a_layer_learns_by_onednn_in_single_precision_and_from_many_stimuli(dtype, n, faster, monkeypatch):
    monkeypatch.setattr(products, "_has_same_bits", lambda *_: True)
    calls = []
    monkeypatch.setattr(products, "_add_products", lambda *arguments: calls.append(arguments))
    layer = LocalLinear(1024, 1024, lr=0.1).to(dtype)
    (x,) = draw(4, (n, 1024), dtype=dtype)
    layer(x)
    layer.local_update(1.0, torch.ones(n, 1024, dtype=dtype))
    assert bool(calls) == faster
