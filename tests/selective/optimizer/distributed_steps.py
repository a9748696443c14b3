"""Compare steps on parameters distributed over processes with steps on whole parameters. A test runs this file.

    python distributed_steps.py RANK PROCESSES FILE

FILE is where the processes find each other. Exits with 1 and a message if a number differs.
"""

import itertools
import sys

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from plastic_selective import SelectivePlasticityOptimizer


def main() -> None:
    rank, processes, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    for base, gating, placement in itertools.product(
        ("sgd", "adam"), ("selective", "uniform"), (Shard(0), Shard(1), Replicate())
    ):
        options = {"base": base, "gating": gating, "lr": 0.05, "plasticity_k": 9.0, "warmup_steps": 3}
        options |= {"weight_decay": 0.1, "maximize": True}
        generator = torch.Generator().manual_seed(0)
        whole = nn.Parameter(torch.randn(7, 6, generator=generator))
        shared = nn.Parameter(distribute_tensor(whole.detach().clone(), mesh, [placement]))
        mine = SelectivePlasticityOptimizer([shared], **options)
        plain = SelectivePlasticityOptimizer([whole], **options)
        for _ in range(9):
            gradient = torch.randn(7, 6, generator=generator)
            whole.grad = gradient
            shared.grad = distribute_tensor(gradient.clone(), mesh, [placement])
            plain.step()
            mine.step()
        where = f"{base}, {gating}, {placement} on {rank} of {processes}"
        torch.testing.assert_close(shared.full_tensor(), whole, rtol=1e-5, atol=1e-6, msg=where)
        gate = mine.get_param_gate(shared).full_tensor()
        assert gate.min() < 0.9, where
        torch.testing.assert_close(gate, plain.get_param_gate(whole), rtol=1e-5, atol=1e-6)
        eligibility = mine.get_param_eligibility(shared).full_tensor()
        torch.testing.assert_close(eligibility, plain.get_param_eligibility(whole), rtol=1e-5, atol=1e-6)
        for name, value in plain.get_diagnostics().items():
            assert abs(mine.get_diagnostics()[name] - value) < 1e-5, (where, name)
        again = SelectivePlasticityOptimizer([shared])
        again.load_state_dict(mine.state_dict())
        again.step()
        plain.step()
        torch.testing.assert_close(shared.full_tensor(), whole, rtol=1e-5, atol=1e-6)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
