"""The network of a stored run, as another program loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plastic_cli.errors import UserError
from plastic_cli.numerics.seeds import seed_sequence
from plastic_cli.runs.folder import open_run
from plastic_cli.testing import plastic
from plastic_mpn.environments.greedy import GreedyEpisodes, evaluation_seeds
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Readout
from plastic_mpn.networks.stored import PUBLISHED_NAMES
from plastic_mpn.trained import network
from processes import run_plastic

TEST = ["--test-episodes", 5, "--max-episode-steps", 30]
OFTEN = ["--evaluate-every", 4, "--evaluation-episodes", 2, "--checkpoint-every", 5]
DQN = ["--episodes", 12, "--batch-size", 8, *OFTEN, *TEST]
A2C = [
    "--algorithm",
    "a2c",
    "--env",
    "CartPole-v1",
    "--total-steps",
    64,
    "--num-envs",
    2,
    "--rollout",
    8,
    *OFTEN,
    *TEST,
]
SUPERVISED = ["--algorithm", "supervised", "--minimum-batches", 10, "--maximum-batches", 20, "--steps", 5]


def trained(*options):
    """Train an agent for an instant, and open its run."""
    outcome = plastic("train", "mpn", "--json", "--hidden", 4, *options)
    assert outcome.code == 0, outcome.err
    return open_run(Path(outcome.results[0]["folder"]), stage="analyze")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (DQN, MPNDQN),
        ([*DQN, "--core", "gru"], MPNDQN),
        ([*DQN, "--core", "lstm", "--layers", 2], MPNDQN),
        ([*DQN, "--core", "mlp"], MPNDQN),
        ([*DQN, "--layers", 2, "--input-projection", 3], MPNDQN),
        (A2C, ActorCritic),
    ],
)
def test_the_loaded_agent_has_the_returns_of_the_run(options, kind):
    run = trained(*options)
    for checkpoint, result in (("best", "test/return"), ("last", "test/last_return")):
        agent = network(run, checkpoint=checkpoint)
        assert type(agent) is kind
        assert not agent.training
        assert all(parameter.requires_grad for parameter in agent.parameters())
        played = GreedyEpisodes("CartPole-v1", max_steps=30)
        returns = played.returns(agent, evaluation_seeds(seed_sequence(run.seed, "test episodes"), 5))
        assert float(returns.mean()) == run.record.summary[result]


def test_the_default_is_the_best_network():
    run = trained(*DQN)
    best = run.load_tensors("best")
    for name, value in network(run).state_dict().items():
        assert torch.equal(value, best[name])
    other = network(run, checkpoint="episode-0000005").state_dict()
    assert any(not torch.equal(value, best[name]) for name, value in other.items())


def test_q_values_and_state_go_on_from_step_to_step():
    agent = network(trained(*DQN))
    observations = torch.randn(6, 2, 4)
    state, each = None, []
    for observation in observations:
        q_values, state = agent(observation, state)
        assert q_values.shape == (2, 2)
        each.append(q_values)
    whole, last = agent(observations)
    torch.testing.assert_close(torch.stack(each), whole)
    torch.testing.assert_close(state, last)
    whole.square().sum().backward()
    assert all(parameter.grad is not None for parameter in agent.parameters())
    assert agent.double()(observations.double())[0].dtype == torch.float64


def test_a_supervised_network_is_the_final_one():
    run = trained(*SUPERVISED)
    loaded = network(run)
    assert isinstance(loaded, Readout)
    outputs, _ = loaded(torch.randn(5, 3, 50))
    assert outputs.shape == (5, 3, 2)
    with pytest.raises(UserError, match="a supervised run has one network"):
        network(run, checkpoint="episode-0000005")


def test_a_checkpoint_that_does_not_exist_or_fit_is_an_error(tmp_path):
    run = trained(*DQN)
    with pytest.raises(UserError, match=r"no such checkpoint.*It has: best, episode-0000005"):
        network(run, checkpoint="worst")
    for name, state in {"other": {"weight": torch.zeros(2, 2)}, "wider": MPNDQN(4, 8, 2).state_dict()}.items():
        torch.save(state, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match="its architecture is not that of run"):
            network(run, checkpoint=str(tmp_path / f"{name}.pt"))


def test_a_checkpoint_of_the_published_program_is_evaluated_and_loaded(tmp_path):
    run = trained(*DQN)
    own = run.load_tensors("best")
    names = {ours: theirs for theirs, ours in PUBLISHED_NAMES.items()}
    state = {names[name]: value for name, value in own.items() if name not in ("core.eta", "core.lambda_")}
    torch.save({"model_state_dict": state, "metadata": {}}, tmp_path / "best_model.pt")
    agent = network(run, checkpoint=str(tmp_path / "best_model.pt"))
    assert all(torch.equal(value, own[name]) for name, value in agent.state_dict().items())
    eval_best = ["eval", "mpn", "--run", run.id, "--json", "--episodes", 3, "--checkpoint"]
    theirs, ours = (plastic(*eval_best, name).results[0]["metrics"] for name in (tmp_path / "best_model.pt", "best"))
    assert theirs == ours


def test_stored_weights_are_loaded_into_an_agent_of_ones_own():
    run = trained(*DQN)
    agent = MPNDQN(obs_dim=4, hidden_dim=4, action_dim=2)
    agent.load_state_dict(torch.load(run.folder / "artifacts" / "best.pt", weights_only=True))
    observations = torch.randn(5, 1, 4)
    assert torch.equal(agent(observations)[0], network(run)(observations)[0])


def test_the_agent_is_loaded_where_its_environment_is_not_installed():
    run = trained(*DQN)
    run.record.config["env"] = "a_module_that_is_gone:Task-v0"
    assert network(run)(torch.zeros(1, 4))[0].shape == (1, 2)


def test_the_command_line_also_calls_the_final_checkpoint_last():
    run = trained(*DQN)
    last, final = (
        plastic("eval", "mpn", "--run", run.id, "--json", "--episodes", 3, "--checkpoint", name).results[0]["metrics"]
        for name in ("last", "final")
    )
    assert last == final


OWN = """
import gymnasium
import numpy as np


class Sign(gymnasium.Env):
    def __init__(self, render_mode=None):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 10
        return self._look(), {}

    def step(self, action):
        reward = float(action == (self.seen[0] > 0))
        self.left -= 1
        return self._look(), reward, self.left == 0, False, {}

    def _look(self):
        self.seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.seen


gymnasium.register("Sign-v0", Sign)
"""


def in_a_new_process(*words):
    # Like the installed program, which does not have the working directory on its path.
    done = run_plastic(*words, PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_run_in_an_environment_of_ones_own_opens_again(tmp_path, monkeypatch):
    module = tmp_path / "my_tasks" / "signs.py"
    module.parent.mkdir()
    module.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    options = ["--hidden-dim", 4, "--num-episodes", 4, "--batch-size", 8, "--test-episodes", 3]
    in_a_new_process("train", "mpn", "--env", "my_tasks.signs:Sign", *options)
    in_a_new_process("eval", "mpn", "--episodes", 3)
    in_a_new_process("render", "mpn", "--frames", 3)
    monkeypatch.chdir(module.parent)
    elsewhere = run_plastic("eval", "mpn", "--runs", tmp_path / "runs")
    assert elsewhere.returncode == 2
    assert elsewhere.stderr.strip().splitlines()[-1] == (
        "error: --env my_tasks.signs:Sign-v0: there is no module my_tasks.signs to import. Start plastic in the folder"
        " that contains my_tasks, or add this folder to PYTHONPATH."
    )


def test_a_run_of_a_task_under_its_former_module_opens():
    options = ["--num-episodes", 4, "--batch-size", 8, "--test-episodes", 3, "--env-options", "trials=1"]
    run = trained("--env", "plastic/GoNogo-v0", *options)
    run.write_record(config={**run.config, "env": "plastic_mpn.tasks:plastic/GoNogo-v0"})
    for words in (("eval", "mpn", "--episodes", 3), ("analyze", "mpn", "--ablate"), ("render", "mpn", "--frames", 3)):
        outcome = plastic(*words, "--run", run.id)
        assert outcome.code == 0, outcome.err
