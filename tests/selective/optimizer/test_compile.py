"""The compiled kernels, torch.compile, threads and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from plastic_selective import SelectivePlasticityOptimizer
from plastic_selective.optimizer import threads as threads_module
from selective.optimizer.synapses import (
    ALLOWED,
    FLOATS,
    each_base,
    each_float,
    learn,
    parameter,
    stream,
)

# -------------------------------------------------------------------------------------------------------------- kernels


@each_base
def test_blocks_and_stretches_of_a_large_parameter_change_nothing(base):
    """More numbers than a block of the kernels, and an odd number, in the kernels and in whole tensors."""
    ends = []
    for dtype in FLOATS:
        p = parameter(9001, dtype=dtype)
        optimizer = SelectivePlasticityOptimizer([p], lr=0.1, base=base, warmup_steps=2, threshold_percentile=50)
        learn(optimizer, [p], stream(9001, steps=4, dtype=dtype))
        ends.append(p.detach().double())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)


def test_float32_takes_the_compiled_path_and_float64_does_not(monkeypatch):
    """Otherwise the tests of two paths would test only one."""
    taken = []
    step_sgd = threads_module.step_sgd
    monkeypatch.setattr(threads_module, "step_sgd", lambda p, *others: (taken.append(p.dtype), step_sgd(p, *others)))
    for dtype in FLOATS:
        p = parameter(3, dtype=dtype)
        learn(SelectivePlasticityOptimizer([p], base="sgd"), [p], stream(3, steps=1, dtype=dtype))
    assert taken == [torch.float32]


# -------------------------------------------------------------------------------------------------------- torch.compile


def compiled_and_eager(base, dtype, backend, tensor_lr=False, **others):
    ends = []
    for compiled in (True, False):
        parameters = [parameter(8, 3, dtype=dtype), parameter(5, seed=1, dtype=dtype)]
        lr = torch.tensor(0.125) if tensor_lr else 0.125
        optimizer = SelectivePlasticityOptimizer(
            parameters, lr=lr, base=base, warmup_steps=4, plasticity_k=8.0, **others
        )

        def step(optimizer=optimizer):
            optimizer.step()

        run = torch.compile(step, backend=backend, fullgraph=True) if compiled else step
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for g in zip(stream(8, 3, steps=11, dtype=dtype), stream(5, steps=11, seed=300, dtype=dtype), strict=True):
            for p, now in zip(parameters, g, strict=True):
                p.grad = now
            run()
        if compiled:
            # One graph makes the state, one is for all later steps.
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs == 2
        ends.append(torch.cat([p.detach().flatten() for p in parameters]))
    return ends


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("base", "dtype", "backend", "tensor_lr"),
    [
        ("sgd", torch.float64, "eager", False),
        ("sgd", torch.float32, "aot_eager", True),
        ("adam", torch.float64, "eager", True),
        ("adam", torch.float32, "aot_eager", False),
    ],
)
def test_torch_compile_makes_one_graph_of_a_step_and_the_same_numbers(base, dtype, backend, tensor_lr):
    found, expected = compiled_and_eager(base, dtype, backend, tensor_lr)
    # A learning rate in float32 is divided by Adam's bias in float32 or, compiled, in float64.
    allowed = ALLOWED[torch.float32 if tensor_lr else dtype]
    torch.testing.assert_close(found, expected, **allowed)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("tensor_lr", [False, True])
@each_base
def test_a_compiled_step_with_weight_decay_and_maximize(base, tensor_lr):
    found, expected = compiled_and_eager(base, torch.float64, "eager", tensor_lr, weight_decay=0.3, maximize=True)
    torch.testing.assert_close(found, expected, **ALLOWED[torch.float32 if tensor_lr else torch.float64])


@pytest.fixture
def only_when_selected(request):
    if "slow" not in request.config.option.markexpr:
        pytest.skip("takes a minute: run with -m slow")


@pytest.mark.slow
@pytest.mark.usefixtures("only_when_selected", "fresh_compiler")
@pytest.mark.parametrize("tensor_lr", [False, True])
@each_float
@each_base
def test_inductor_makes_the_same_numbers(base, dtype, tensor_lr):
    found, expected = compiled_and_eager(base, dtype, "inductor", tensor_lr)
    torch.testing.assert_close(found, expected, **ALLOWED[torch.float32 if tensor_lr else dtype])


# ------------------------------------------------------------------------------------------------ threads and processes


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_parameters_distributed_over_two_processes_follow_whole_ones(tmp_path):
    """DTensor in all placements, with both bases and gatings, diagnostics and saving."""
    script = Path(__file__).with_name("distributed_steps.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(tmp_path / "meeting")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors


@pytest.fixture
def threads():
    """Set the number of torch's threads, and reset it to one at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


LARGE = (1 << 18) + 4099


@each_base
def test_two_threads_do_what_one_does_bit_for_bit(base, threads):
    gradients = stream(LARGE, steps=3)
    ends = []
    for number in (1, 2, 3):
        p = parameter(LARGE)
        optimizer = SelectivePlasticityOptimizer([p], base=base, lr=0.1, warmup_steps=2, plasticity_k=9.0)
        threads(number)
        learn(optimizer, [p], gradients)
        threads(1)
        ends.append(p.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_a_large_parameter_is_split_over_threads(threads, monkeypatch):
    """Otherwise the test of two threads would test only one."""
    took_part = set()
    kernel = threads_module.kernels.gated_sgd

    def watched(*arguments):
        took_part.add(threading.get_ident())
        return kernel(*arguments)

    monkeypatch.setattr(threads_module.kernels, "gated_sgd", watched)
    p = parameter(LARGE)
    threads(2)
    learn(SelectivePlasticityOptimizer([p], base="sgd"), [p], [torch.ones(LARGE)])
    assert len(took_part) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    p = parameter(LARGE)
    optimizer = SelectivePlasticityOptimizer([p], lr=0.1, base="sgd")
    gradients = stream(LARGE, steps=4)
    learn(optimizer, [p], gradients[:1])

    def end():
        # Only what the optimizer needs of torch: a forked process does not have torch's threads.
        threads(2)
        for g in gradients[1:]:
            p.grad = g
            optimizer.step()
        return repr(float(p.detach().numpy().sum(dtype=np.float64))).encode()

    p.grad = gradients[0]
    threads(2)
    optimizer.step()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # otherwise a child that hangs would never end
        os.write(writer, end())
        os._exit(0)
    os.close(writer)
    expected = end()
    with open(reader, "rb") as answer:  # noqa: PTH123  a pipe has no path
        found = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    assert found == expected


@each_base
def test_two_python_threads_with_an_optimizer_each(base, threads):
    def end(seed):
        p = parameter(LARGE, seed=seed)
        learn(SelectivePlasticityOptimizer([p], base=base, lr=0.1), [p], gradients[seed])
        ends[seed] = p.detach()

    gradients = {seed: stream(LARGE, steps=2, seed=100 * seed) for seed in (1, 2)}
    ends = {}
    threads(2)
    end(1)
    end(2)
    expected = dict(ends)
    at_once = [threading.Thread(target=end, args=(seed,)) for seed in (1, 2)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    for seed in (1, 2):
        assert ends[seed] is not expected[seed]
        assert torch.equal(ends[seed], expected[seed])
