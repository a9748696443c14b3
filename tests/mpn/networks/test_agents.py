"""The agents: states of networks, and checkpoints of the published program."""

from __future__ import annotations

import pytest
import torch

from plastic_mpn import MPNDQN

ETA, LAMBDA = 0.05, 0.9


def published_state(*, learned=False, obs_dim=4, hidden=8, actions=2):
    """The state of the published MPNDQN, by its names: its first version, or a later one that learns eta and lambda."""
    state = {
        "mpn.mpn_layer.W": torch.randn(hidden, obs_dim),
        "mpn.mpn_layer.b": torch.randn(hidden),
        "q_head.weight": torch.randn(actions, hidden),
        "q_head.bias": torch.randn(actions),
    }
    if learned:
        state |= {"mpn.mpn_layer.eta": torch.tensor(-0.4), "mpn.mpn_layer._lambda_raw": torch.tensor(0.7)}
    return state


def published_q_values(state, observations):
    """Q-values by the published equations, one observation after the other: h = tanh(b + (W (M + 1)) x)."""
    eta, decay = state.get("mpn.mpn_layer.eta", ETA), state.get("mpn.mpn_layer._lambda_raw", LAMBDA)
    W, b = state["mpn.mpn_layer.W"], state["mpn.mpn_layer.b"]
    M, q_values = torch.zeros_like(W), []
    for x in observations:
        h = torch.tanh(b + (W * (M + 1)) @ x)
        M = decay * M + eta * torch.outer(h, x)
        q_values.append(state["q_head.weight"] @ h + state["q_head.bias"])
    return torch.stack(q_values)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_of_the_published_program_is_loaded(learned, wrapped, tmp_path):
    torch.manual_seed(1)
    state = published_state(learned=learned)
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    whole = {"model_state_dict": state, "metadata": {"episode": 500, "avg_reward": 412.5}, "optimizer_state_dict": adam}
    torch.save(whole if wrapped else state, tmp_path / "best_model.pt")
    agent = MPNDQN(obs_dim=4, hidden_dim=8, action_dim=2, eta=ETA, lambda_decay=LAMBDA)
    before = agent.state_dict().keys()
    agent.load_state_dict(torch.load(tmp_path / "best_model.pt", weights_only=True))
    observations = torch.randn(6, 4)
    found, _ = agent(observations[:, None])
    torch.testing.assert_close(found[:, 0], published_q_values(state, observations))
    assert agent.state_dict().keys() == before


def test_an_agent_that_learns_eta_takes_the_published_one_as_parameters():
    agent = MPNDQN(4, 8, 2, learn_eta=True, learn_lambda=True)
    agent.load_state_dict(published_state(learned=True))
    values = dict(agent.named_parameters())
    assert values["core.eta"].item() == pytest.approx(-0.4)
    assert values["core.lambda_"].item() == pytest.approx(0.7)


def test_a_published_checkpoint_of_other_sizes_or_of_another_network_is_refused():
    agent = MPNDQN(4, 8, 2)
    with pytest.raises(RuntimeError, match=r"size mismatch for core\.W"):
        agent.load_state_dict({"model_state_dict": published_state(hidden=9)})
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .*core.W"):
        agent.load_state_dict({"model_state_dict": {"rnn.weight_ih": torch.zeros(2, 2)}})


def test_an_own_state_is_loaded_as_by_any_module():
    one, other = MPNDQN(4, 8, 2), MPNDQN(4, 8, 2)
    given = one.state_dict()
    other.load_state_dict(given)
    assert all(torch.equal(value, given[name]) for name, value in other.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})
    inside = torch.nn.ModuleDict({"agent": MPNDQN(4, 8, 2)})
    inside.load_state_dict({f"agent.{name}": value for name, value in given.items()})
    assert torch.equal(inside["agent"].core.W, one.core.W)
