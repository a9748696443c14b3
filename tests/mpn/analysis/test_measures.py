"""The measures of `plastic analyze mpn` against independent calculations in float64 and planted signals."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from plotnine import geom_path
from sklearn.linear_model import Ridge

from plastic_cli.errors import UserError
from plastic_cli.runs.folder import create_run
from plastic_mpn import rule
from plastic_mpn.analysis.ablation import (
    ABLATIONS,
    ablate,
    ablated_part,
    freezing_step,
    make_ablation,
    summarize_ablations,
)
from plastic_mpn.analysis.component_figures import states_figure, trials_figure
from plastic_mpn.analysis.decoding import (
    _folds,
    _ridge_regressions,
    decode,
    find_targets,
)
from plastic_mpn.analysis.figures import (
    ablation_figure,
    classes_figure,
    entries_figure,
    matrices_figure,
    modulation_figure,
)
from plastic_mpn.analysis.measures import analyze_network
from plastic_mpn.analysis.modulation import (
    modulation_table,
    parts_of_preactivation,
    summarize_modulation,
    variance_share,
)
from plastic_mpn.analysis.principal_components import (
    color_values,
    has_trials,
    principal_components,
    state_sequences,
    trajectory_table,
    trial_table,
    variance_table,
)
from plastic_mpn.analysis.recording import Episode, readable, record_episodes
from plastic_mpn.environments.names import names_of
from plastic_mpn.environments.vector import make_environment
from plastic_mpn.networks.agents import MPNDQN, ActorCritic, Readout

INTEGRATION = "plastic/SimpleIntegration-v0"


def network(core="mpn", kind=MPNDQN, sizes=(4, 6, 2), **options):
    if core.startswith("mpn"):
        options = {"eta": 0.3, "lambda_decay": 0.8, **options}
    return kind(*sizes, core=core, generator=torch.Generator().manual_seed(3), **options)


def integrator(core="mpn", **options):
    return network(core, Readout, (8, 6, 2), **options)


SMALL = {"dimension": 8, "steps": 6, "trials": 2, "noise": 0.0}


def episode(observations, hidden=None, matrices=None, infos=None, rewards=None, seed=0):
    """Create an episode; values that are not given are zero."""
    length = len(observations)
    return Episode(
        seed=seed,
        observations=np.asarray(observations, np.float32),
        actions=np.zeros(length, np.int64),
        rewards=np.zeros(length) if rewards is None else np.asarray(rewards, float),
        outputs=np.zeros((length, 2), np.float32),
        hidden=np.zeros((length, 1), np.float32) if hidden is None else np.asarray(hidden, np.float32),
        matrices=None if matrices is None else np.asarray(matrices, np.float32),
        infos=tuple({} for _ in range(length)) if infos is None else tuple(infos),
    )


# ----------------------------------------------------------------------------------------------------- recording


@pytest.mark.parametrize("kind", [MPNDQN, ActorCritic])
def test_parallel_episodes_equal_single_ones(kind):
    agent = network(kind=kind)
    seeds = list(range(5, 13))
    episodes = record_episodes(agent, "CartPole-v1", seeds, max_steps=40)
    lengths = [len(played) for played in episodes]
    assert lengths != sorted(lengths, reverse=True), "an episode should go on behind the end of one before it"
    layer = agent.core
    W, b = layer.W.detach().double().numpy(), layer.b.detach().double().numpy()
    for seed, played in zip(seeds, episodes, strict=True):
        environment = make_environment("CartPole-v1", max_steps=40)
        seen, _ = environment.reset(seed=seed)
        M, over = np.zeros((6, 4)), False
        for step in range(len(played)):
            assert not over
            np.testing.assert_array_equal(played.observations[step], seen.astype(np.float32))
            np.testing.assert_allclose(played.matrices[step], M, atol=1e-5)
            h = np.tanh(b + (W * (M + 1)) @ seen)
            np.testing.assert_allclose(played.hidden[step], h, atol=1e-5)
            M = 0.8 * M + 0.3 * np.outer(h, seen)
            assert played.actions[step] == played.outputs[step].argmax()
            seen, reward, terminated, truncated, _ = environment.step(int(played.actions[step]))
            assert played.rewards[step] == reward
            over = terminated or truncated
        assert over
        assert played.episode_return == played.rewards.sum()


def test_info_belongs_to_its_observation():
    vectors = {}
    for played in record_episodes(integrator(), INTEGRATION, [1, 2, 3], options=SMALL):
        for observation, info in zip(played.observations, played.infos, strict=True):
            vectors.setdefault(int(info["input"]), set()).add(observation.tobytes())
    # Without noise, every input index has one vector.
    assert len(vectors) > 2
    assert all(len(seen) == 1 for seen in vectors.values())


def test_recorded_info_does_not_change_later():
    shared = np.zeros(2)
    kept = readable({"velocity": shared, 3: 1.5, "word": "left", "ragged": [[1], [2, 3]], "thing": object()})
    shared[:] = 9
    assert kept["velocity"].tolist() == [0, 0]
    assert {name: value for name, value in kept.items() if name != "velocity"} == {"3": 1.5, "word": "left"}


def test_states_can_be_left_out_and_cores_without_m_have_none():
    (played,) = record_episodes(network(), "CartPole-v1", [0], keep_states=False)
    assert played.hidden.size == 0
    assert played.matrices is None
    assert len(played) == len(played.outputs) > 0
    (played,) = record_episodes(network("gru"), "CartPole-v1", [0])
    assert played.matrices is None
    assert played.hidden.shape == (len(played), 6)


def test_an_environment_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"--env Acrobot-v1: its observations have 6 numbers, .* trained on 4"):
        record_episodes(network(), "Acrobot-v1", [0])
    with pytest.raises(UserError, match="it has 3 actions, but the network has 2 outputs"):
        record_episodes(network(sizes=(6, 5, 2)), "Acrobot-v1", [0])


# ------------------------------------------------------------------------------------------------------ ablation


def ablated(agent, name, seeds=(1, 2), options=SMALL, env=INTEGRATION, freeze_after=3):
    change = make_ablation(name, agent.core, len(seeds), freeze_after=freeze_after, seed=4)
    return record_episodes(agent, env, seeds, options=options, ablation=change)


def test_zeroed_equals_a_network_whose_m_stays_zero():
    agent = integrator()
    still = copy.deepcopy(agent)
    still.core.eta.zero_()
    for zeroed, frozen in zip(
        ablated(agent, "zeroed"), record_episodes(still, INTEGRATION, [1, 2], options=SMALL), strict=True
    ):
        assert not zeroed.matrices.any()
        np.testing.assert_array_equal(zeroed.outputs, frozen.outputs)


def test_frozen_keeps_m_after_the_first_steps():
    agent = integrator()
    intact = record_episodes(agent, INTEGRATION, [1, 2], options=SMALL)
    for frozen, free in zip(ablated(agent, "frozen"), intact, strict=True):
        np.testing.assert_array_equal(frozen.matrices[:4], free.matrices[:4])
        assert np.all(frozen.matrices[3:] == frozen.matrices[3])
        assert np.any(free.matrices[4:] != free.matrices[3])


def test_shuffled_moves_every_entry_by_one_permutation_per_episode():
    agent = integrator()
    W, b = agent.core.W.detach().double().numpy(), agent.core.b.detach().double().numpy()
    orders = []
    for played in ablated(agent, "shuffled"):
        after = []
        for step in range(len(played)):
            x, M = played.observations[step].astype(float), played.matrices[step].astype(float)
            h = np.tanh(b + (W * (M + 1)) @ x)
            after.append(0.8 * M + 0.3 * np.outer(h, x))
        for left, used in zip(after[:-1], played.matrices[1:], strict=True):
            np.testing.assert_allclose(np.sort(left.ravel()), np.sort(used.ravel()), atol=1e-5)
        # Entries that are told apart by their size show where each went; they go the same way at every step.
        pairs = list(zip(after[2:-1], played.matrices[3:], strict=True))
        places = np.abs(pairs[-1][0].ravel()[:, None] - pairs[-1][1].ravel()[None, :]).argmin(axis=1)
        orders.append(places)
        for left, used in pairs:
            np.testing.assert_allclose(left.ravel(), used.ravel()[places], atol=1e-4)
        assert np.any(places != np.arange(len(places)))
    assert np.any(orders[0] != orders[1])


def test_each_layer_with_m_is_ablated_separately():
    agent = integrator(layers=2)
    state = torch.randn(3, *agent.core.state_shape)
    changed = make_ablation("shuffled", agent.core, 3)(state, 0)
    assert torch.any(changed != state)
    for before, after in zip(agent.core.matrices(state), agent.core.matrices(changed), strict=True):
        assert before.shape == after.shape
        torch.testing.assert_close(before.flatten(1).sort().values, after.flatten(1).sort().values)


def test_without_m_the_hidden_state_is_ablated():
    gru, lstm, mlp = (network(core) for core in ("gru", "lstm", "mlp"))
    assert [ablated_part(agent.core) for agent in (network(), gru, lstm, mlp)] == [
        "M",
        "hidden state",
        "hidden state",
        None,
    ]
    state = torch.arange(2 * 2 * 6, dtype=torch.float32).view(2, 2, 6)
    changed = make_ablation("shuffled", lstm.core, 2)(state, 0)
    # Hidden and cell state of a unit stay together: they differ by 6 as before.
    torch.testing.assert_close(changed[:, 1] - changed[:, 0], torch.full((2, 6), 6.0))
    torch.testing.assert_close(changed.sort(dim=-1).values, state)
    assert not make_ablation("zeroed", gru.core, 2)(torch.ones(2, 6), 0).any()


def test_differences_of_ablations_are_paired_by_episode():
    lost = [6, 7, 5, 6, 6]
    table = pd.DataFrame(
        [{"ablation": "intact", "episode": number, "return": 10.0 * number} for number in range(5)]
        # In another order: episodes are told apart by their number.
        + [{"ablation": "zeroed", "episode": n, "return": 10.0 * n - lost[n]} for n in (3, 0, 4, 1, 2)]
    )
    intact, zeroed = summarize_ablations(table).to_dict("records")
    assert (intact["mean"], intact["difference"], zeroed["mean"]) == (20, 0, 14)
    assert zeroed["difference"] == -6
    assert -7 < zeroed["difference_low"] < -6 < zeroed["difference_high"] < -5
    assert zeroed["low"] < 4, "the returns themselves differ far more than the differences"
    assert zeroed["episodes"] == 5


def test_ablations_use_the_same_seeds_and_paired_episodes():
    agent = integrator()
    seeds = [11, 12, 13, 14]
    intact = record_episodes(agent, INTEGRATION, seeds, options=SMALL)
    table = ablate(agent, INTEGRATION, intact, options=SMALL)
    assert freezing_step(intact) == 6
    assert list(dict.fromkeys(table["ablation"])) == ["intact", *ABLATIONS]
    assert all(group["seed"].tolist() == seeds for _, group in table.groupby("ablation"))
    zeroed = table[table["ablation"] == "zeroed"]["return"].to_numpy()
    assert zeroed.tolist() == [played.episode_return for played in ablated(agent, "zeroed", seeds)]
    summary = summarize_ablations(table).set_index("ablation")
    returns = np.array([played.episode_return for played in intact])
    assert summary.loc["zeroed", "mean"] == pytest.approx(zeroed.mean())
    assert summary.loc["zeroed", "difference"] == pytest.approx((zeroed - returns).mean())
    assert summary.loc["intact", ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]


# -------------------------------------------------------------------------------------------- principal components


def test_states_that_do_not_vary_have_no_components():
    assert principal_components([np.ones((5, 3), np.float32)]) is None


@pytest.mark.parametrize("width", [6, 700])
def test_principal_components_are_those_of_the_singular_value_decomposition(width):
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(90, 3)) * [5, 3, 1]
    states = (factors @ rng.normal(size=(3, width)) + 0.01 * rng.normal(size=(90, width))).astype(np.float32)
    found = principal_components([states[:30], states[30:]])
    centered = states.astype(float) - states.astype(float).mean(axis=0)
    variances = np.linalg.svd(centered, compute_uv=False) ** 2
    np.testing.assert_allclose(found.variance_ratios[:3], (variances / variances.sum())[:3], rtol=1e-3)
    # What the first three leave out is small, so that distances are kept.
    places = found.project(states)[:, :3]
    np.testing.assert_allclose(places[0] @ places[1], centered[0] @ centered[1], rtol=1e-2)
    table = variance_table({"h": found})
    assert table["cumulative"].iloc[-1] <= 1
    assert table["cumulative"].is_monotonic_increasing


def test_components_of_saturated_units_are_in_the_order_of_their_variances():
    rng = np.random.default_rng(2)
    directions = np.linalg.qr(rng.normal(size=(30, 30)))[0][:4]
    deviations = np.sqrt([1e-5, 1e-6, 3e-7, 1e-7])
    states = (0.999 + rng.normal(size=(3000, 4)) * deviations @ directions).astype(np.float32)
    found = principal_components([states[:900], states[900:]], components=4)
    centered = states.astype(np.float64) - states.astype(np.float64).mean(axis=0)
    variances, axes = np.linalg.svd(centered, full_matrices=False)[1:]
    variances = variances**2
    np.testing.assert_allclose(found.variance_ratios, (variances / variances.sum())[:4], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * axes[:4], axis=1)), 1, rtol=1e-6)
    along = found.project(states).var(axis=0)
    np.testing.assert_allclose(along / along.sum(), variances[:4] / variances[:4].sum(), rtol=1e-6)
    assert np.all(np.diff(along) < 0)


def test_trajectories_have_a_row_for_each_step():
    episodes = record_episodes(integrator(), INTEGRATION, [1, 2, 3], options=SMALL)
    found = {state: principal_components(states) for state, states in state_sequences(episodes).items()}
    table = trajectory_table(episodes, found, "target")
    assert len(table) == 2 * 3 * 12
    second = table[(table["state"] == "M") & (table["episode"] == 1)]
    flat = episodes[1].matrices.reshape(12, -1)
    np.testing.assert_allclose(second[["PC1", "PC2"]].to_numpy(), found["M"].project(flat)[:, :2], atol=1e-6)
    assert second["value"].tolist() == [info["target"] for info in episodes[1].infos]


def test_values_that_color_a_trajectory():
    infos = [{"period": "go", "x": 1}, {"period": "go"}]
    played = episode([[1, 2], [3, 4]], infos=infos, rewards=[1, 2])
    assert color_values(played, "time").tolist() == [0, 1]
    assert color_values(played, "return").tolist() == [1, 3]
    assert color_values(played, "observation-1").tolist() == [2, 4]
    assert color_values(played, "period").tolist() == ["go", "go"]
    np.testing.assert_array_equal(color_values(played, "x"), [1, np.nan])
    with pytest.raises(
        UserError, match=r"choose time, .*observation-0, \.\.\. observation-1, period, x\. Did you mean"
    ):
        color_values(played, "observation-7")
    assert color_values(played, "angle", ["place", "angle"]).tolist() == [2, 4]
    assert color_values(played, "observation-0", ["place", "angle"]).tolist() == [1, 3]
    with pytest.raises(UserError, match=r"choose time, .*return, place, angle, period, x\. Did you mean 'angle'"):
        color_values(played, "angel", ["place", "angle"])


def test_a_trial_has_the_answer_of_its_end_at_every_step():
    # Two trials of two and three steps; the correct action before the decision is 0.
    infos = [
        {"trial": trial, "trial_step": step, "period": "decision" if last else "delay", "target": target * last}
        for trial, target, steps in ((0, 1, 2), (1, 2, 3))
        for step in range(steps)
        for last in [step == steps - 1]
    ]
    rng = np.random.default_rng(0)
    episodes = [episode(np.zeros((5, 1)), hidden=rng.normal(size=(5, 3)), infos=infos) for _ in range(2)]
    assert has_trials(episodes)
    assert not has_trials([episode(np.zeros((5, 1)))])
    found = {"h": principal_components(state_sequences(episodes)["h"])}
    table = trial_table(episodes, found)
    assert table["answer"].tolist() == [1, 1, 2, 2, 2] * 2
    assert table["trial_step"].tolist() == [0, 1, 0, 1, 2] * 2
    expected = [found["h"].project(played.hidden)[:, :2] for played in episodes]
    np.testing.assert_allclose(table[["PC1", "PC2"]], np.concatenate(expected))


def drawn_states(length=6, color="action", values=None, names=("left", "right")):
    rng = np.random.default_rng(0)
    episodes = [episode(np.zeros((length, 1)), hidden=rng.normal(size=(length, 3))) for _ in range(3)]
    found = {"h": principal_components(state_sequences(episodes)["h"])}
    table = trajectory_table(episodes, found)
    table["value"] = np.resize([0, 1] if values is None else values, len(table))
    return states_figure(table, found, color, "an agent", names)


def test_states_of_long_episodes_are_not_connected_and_actions_have_names():
    for length, connected in ((6, True), (400, False)):
        figure = drawn_states(length)
        assert any(isinstance(layer.geom, geom_path) for layer in figure.layers) == connected
        plt.close(figure.draw())
    (scale,) = [scale for scale in figure.scales if "color" in scale.aesthetics]
    assert (scale.name, list(figure.data["value"].cat.categories)) == ("action", ["left", "right"])
    figure = drawn_states(color="angle", values=np.linspace(0, 1, 18), names=())
    assert figure.data["value"].dtype == float
    plt.close(figure.draw())


def test_the_mean_of_trials_leaves_out_steps_that_few_trials_have():
    lengths = (3, 3, 5)
    table = pd.DataFrame(
        [
            {"state": "h", "episode": 0, "trial": trial, "trial_step": step, "period": "delay", "answer": 0,
             "PC1": float(trial), "PC2": float(step)}
            for trial, length in enumerate(lengths) for step in range(length)
        ]
    )  # fmt: skip
    found = {"h": principal_components([np.random.default_rng(0).normal(size=(9, 3))])}
    figure = trials_figure(table, found, "an agent", ("wait", "go"))
    assert figure.data["PC2"].tolist() == [0, 1, 2]
    assert figure.data["PC1"].tolist() == [1, 1, 1]
    assert list(figure.data["answer"].unique()) == ["wait"]
    plt.close(figure.draw())


# ---------------------------------------------------------------------------------------------------- modulation


@pytest.mark.parametrize("core", ["mpn", "mpn-additive"])
def test_the_parts_sum_to_the_preactivation(core):
    agent = network(core, Readout, (8, 6, 2), layers=2, projection=5)
    (played,) = record_episodes(agent, INTEGRATION, [1], options=SMALL)
    layer = agent.core.plastic_layers()[0]
    assert played.matrices.shape == (12, 6, 5)
    seen = agent.core.project(torch.from_numpy(played.observations))
    fixed, modulated = parts_of_preactivation(layer, seen.numpy(), played.matrices)
    whole = rule.preactivation(seen, torch.from_numpy(played.matrices), layer.W, layer.b, layer.variant.interaction)
    np.testing.assert_allclose(fixed + modulated, whole.detach().numpy(), atol=1e-5)
    sizes = np.linalg.norm(modulated, axis=1), np.linalg.norm(fixed, axis=1)
    np.testing.assert_allclose(modulation_table(agent, [played])["share"], sizes[0] / sum(sizes))
    # The next M shows that these were the inputs: it holds h x^T.
    h = np.tanh(fixed + modulated)
    expected = 0.8 * played.matrices[4] + 0.3 * np.outer(h[4], seen[4])
    np.testing.assert_allclose(played.matrices[5], expected, atol=1e-5)


def test_norm_and_share_by_hand():
    agent = network(sizes=(2, 2, 2))
    with torch.no_grad():
        agent.core.W.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        agent.core.b.zero_()
    M = np.array([np.zeros((2, 2)), [[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    played = episode([[1, 1], [1, 0], [0, 0]], matrices=M)
    table = modulation_table(agent, [played])
    np.testing.assert_allclose(table["norm"], [0, 5, np.sqrt(2)])
    # Step 1: W x is (1, 0), (W * M) x is (3, 0). Step 2: nothing drives the units.
    np.testing.assert_allclose(table["share"], [0, 0.75, np.nan])
    # m: (0, 0), (3, 0), (0, 0); m + c: (1, 2), (4, 0), (0, 0).
    m, a = np.array([[0, 0], [3, 0], [0, 0.0]]), np.array([[1, 2], [4, 0], [0, 0.0]])
    covariance = sum(np.cov(m[:, unit], a[:, unit])[0, 1] for unit in range(2))
    assert variance_share(agent, [played]) == pytest.approx(covariance / a.var(axis=0, ddof=1).sum())


def test_the_variance_share_is_0_without_m_and_1_without_weights_that_vary():
    agent = network("mpn-additive", sizes=(2, 3, 2))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    assert variance_share(agent, [episode(x, matrices=np.zeros((20, 3, 2)))]) == 0
    with torch.no_grad():
        agent.core.W.zero_()
    assert variance_share(agent, [episode(x, matrices=rng.normal(size=(20, 3, 2)))]) == pytest.approx(1)


def test_the_mean_over_episodes_is_over_those_that_have_the_step():
    table = pd.DataFrame({"episode": [0, 0, 1], "step": [0, 1, 0], "norm": [1.0, 5.0, 3.0], "share": [0.0, 0.5, 1.0]})
    summary = summarize_modulation(table).set_index(["measure", "step"])
    assert summary["mean"].tolist() == [2, 5, 0.5, 0.5]
    assert summary["episodes"].tolist() == [2, 1, 2, 1]


# ------------------------------------------------------------------------------------------------------ decoding


def rows(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_ridge_regression_equals_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)) + 2, rng.normal(size=(30, 2)) - 1
    for penalty, (weights, intercept) in zip([0.01, 2.0], _ridge_regressions(x, y, [0.01, 2.0]), strict=True):
        theirs = Ridge(alpha=30 * penalty).fit(x, y)
        np.testing.assert_allclose(weights.T, theirs.coef_)
        np.testing.assert_allclose(intercept, theirs.intercept_)


def planted(lengths, delay, rng, noise=0.1):
    """Create episodes of white observations: h is the observation `delay` steps ago, M the present one."""
    made = []
    for length in lengths:
        observations = rng.normal(size=(length, 2))
        past = np.concatenate([np.zeros((delay, 2)), observations])[:length]
        hidden = past @ rng_mixing + noise * rng.normal(size=(length, 5))
        made.append(episode(observations, hidden, matrices=np.einsum("ti,j->tij", observations, np.arange(1, 4))))
    return made


rng_mixing = np.random.default_rng(9).normal(size=(2, 5))


def test_a_planted_past_input_is_decoded_only_at_its_lag():
    rng = np.random.default_rng(0)
    table = decode(planted([40, 60, 50, 45, 55, 40, 60, 50], 2, rng), lags=(0, 1, 2, 5))
    h = {lag: rows(table, state="h", target="observation", lag=lag) for lag in (0, 1, 2, 5)}
    assert h[2]["value"] > 0.95
    assert all(abs(h[lag]["value"]) < 0.1 for lag in (0, 1, 5))
    assert all(abs(row["chance"]) < 0.1 for row in h.values())
    M = {lag: rows(table, state="M", target="observation", lag=lag)["value"] for lag in (0, 2)}
    assert M[0] > 0.99
    assert abs(M[2]) < 0.1
    # A lag of k is known from step k on.
    assert h[5]["steps"] == h[0]["steps"] - 5 * 8
    single = rows(table, state="h", target="observation-1", lag=2)
    assert single["value"] > 0.9


def test_m_is_reduced_to_its_first_components_and_h_is_not(monkeypatch):
    monkeypatch.setattr("plastic_mpn.analysis.decoding.MAX_COMPONENTS_OF_M", 1)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(8):
        observations = rng.normal(size=(40, 1))
        # A loud number that tells nothing beside a quiet one that tells all.
        states = np.concatenate([50 * rng.normal(size=(40, 1)), observations], axis=1)
        made.append(episode(observations, states, matrices=states[:, None, :]))
    table = decode(made, lags=(0,))
    assert rows(table, state="h", target="observation", lag=0)["value"] > 0.95
    assert abs(rows(table, state="M", target="observation", lag=0)["value"]) < 0.1


@pytest.mark.parametrize("reduce", [False, True])
def test_every_step_is_tested_once_by_a_decoder_of_other_episodes(reduce):
    groups = np.repeat(np.arange(8), [9, 3, 5, 5, 7, 4, 6, 8])
    states = np.random.default_rng(0).normal(size=(len(groups), 4)).astype(np.float32)
    folds = _folds(states, groups, reduce=reduce, seed=0)
    assert np.all(sum(fold.test.astype(int) for fold in folds) == 1)
    for fold in folds:
        parts = [set(groups[rows]) for rows in (fold.fit, fold.validation, fold.test)]
        assert all(parts)
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 8
    # What is held out decides neither the scale of the units nor the components.
    changed = np.where(folds[0].test[:, None], 100 * states + 7, states)
    training = ~folds[0].test
    again = _folds(changed, groups, reduce=reduce, seed=0)[0]
    np.testing.assert_allclose(again.states[training], folds[0].states[training])


def test_signals_of_single_episodes_do_not_generalize():
    # An episode has an h and a label of its own: inside it the one tells the other, beyond it nothing.
    rng = np.random.default_rng(0)
    made = []
    for _ in range(30):
        mark = rng.normal(size=20)
        infos = [{"label": int(rng.integers(2))}] * 15
        made.append(episode(rng.normal(size=(15, 1)), mark + 0.01 * rng.normal(size=(15, 20)), infos=infos))
    row = rows(decode(made, lags=()), state="h", target="label")
    assert 0.2 < row["value"] < 0.8
    assert row["chance_low"] <= row["chance"] <= row["chance_high"]


def test_classes_are_decoded_and_the_control_is_at_chance():
    rng = np.random.default_rng(0)
    made = []
    for number in range(24):
        label = number % 3
        hidden = np.eye(3)[label] + 0.2 * rng.normal(size=(20, 3))
        infos = [{"target": label, "word": ["left", "right", "none"][label], "fixed": 1}] * 20
        made.append(episode(rng.normal(size=(20, 1)), hidden, infos=infos))
    table = decode(made, lags=(0,))
    for target in ("target", "word"):
        row = rows(table, target=target)
        assert row["score"] == "accuracy"
        assert row["value"] > 0.9
        assert row["chance"] < 0.65
    assert "fixed" not in set(table["target"])


def test_signals_of_time_are_decoded_by_the_control_as_well():
    rng = np.random.default_rng(0)
    clock = np.arange(30.0)
    made = [
        episode(
            rng.normal(size=(30, 1)),
            np.stack([clock, rng.normal(size=30)], axis=1),
            infos=[{"elapsed": float(t)} for t in clock],
        )
        for _ in range(6)
    ]
    row = rows(decode(made, lags=()), target="elapsed")
    assert row["value"] > 0.99
    assert row["chance"] > 0.99


def test_targets_of_observations_and_info():
    infos = [
        {"whole": step, "kind": step % 2, "flag": step > 2, "word": "ab"[step % 2], "real": step / 3, "none": None}
        | {"pair": np.array([step, -step]), "scalar": np.array(step % 3), "sometimes": None if step < 9 else step % 2}
        | {"table": np.full((3, 3), step), "list": list(range(step))}
        for step in range(12)
    ]
    targets = {
        (target.name, target.lag): target
        for target in find_targets([episode(np.zeros((12, 3)), infos=infos)], (0, 11, 12))
    }
    assert {name for name, _ in targets} == {
        *("observation", "whole", "kind", "flag", "word", "real", "pair", "scalar", "sometimes")
    }
    assert [lag for name, lag in targets if name == "observation"] == [0, 11]
    scores = {name: target.score for (name, _), target in targets.items()}
    assert {name for name, score in scores.items() if score == "R2"} == {"observation", "whole", "real", "pair"}
    assert targets["pair", 0].columns == ("pair-0", "pair-1")
    assert np.isnan(targets["sometimes", 0].episodes[0]).all(axis=1).sum() == 9


def test_a_constant_state_decodes_nothing():
    rng = np.random.default_rng(0)
    made = [episode(rng.normal(size=(20, 1)), np.ones((20, 3)), np.zeros((20, 3, 1))) for _ in range(6)]
    assert (decode(made, lags=(0,))["value"].abs() < 0.1).all()


def test_episodes_shorter_than_a_lag_are_left_out():
    lengths = (8, 3, 10, 12)
    episodes = [episode(np.arange(length)[:, None], seed=length) for length in lengths]
    of_lag = {target.lag: target for target in find_targets(episodes) if target.name == "observation"}
    assert sorted(of_lag) == [0, 1, 2, 5, 10]
    for lag, target in of_lag.items():
        for length, values in zip(lengths, target.episodes, strict=True):
            wanted = [np.nan] * min(lag, length) + list(range(length - lag))
            np.testing.assert_array_equal(values[:, 0], wanted)


def test_decoding_needs_episodes_to_hold_out():
    with pytest.raises(UserError, match=r"at least 5 episodes .*, not 4"):
        decode([episode(np.zeros((3, 1)))] * 4)


# --------------------------------------------------------------------------------------------------- the command


def asked(**changes):
    switches = {"pca": False, "m_matrix": False, "decode": False, "ablate": False}
    return SimpleNamespace(**{**switches, "episodes": 6, "color": None, **changes})


def trained(agent, env_id=INTEGRATION, options=SMALL, max_steps=None):
    names = names_of(make_environment(env_id, options=options))
    return SimpleNamespace(
        network=agent, env_id=env_id, options=options, max_steps=max_steps, checkpoint="best", names=names
    )


@pytest.fixture
def run(runs_folder):
    return create_run(runs_folder, rule="mpn", config={"seed": 0, "core": "mpn"}, stage="analyze")


def test_without_a_switch_every_analysis_runs(run):
    analyze_network(asked(), run, trained(integrator()))
    names = {path.stem for path in (run.folder / "figures").glob("*.png")}
    assert names == {
        *("pca_variance", "pca_trajectories", "modulations", "m_matrix"),
        *("decoding_past", "decoding_now", "decoding_classes", "ablations"),
    }
    tables = {path.stem: pd.read_csv(path) for path in (run.folder / "tables").glob("*.csv")}
    assert len(tables["modulations"]) == 6 * 12
    intact = tables["ablations"].query("ablation == 'intact'")["return"].mean()
    assert run.results["episodes/return"] == pytest.approx(intact)
    assert run.results["episodes/intact/return"] == pytest.approx(intact)
    assert {"episodes/h/participation_ratio", "episodes/M/participation_ratio", "episodes/variance_share"} <= set(
        run.results
    )


def test_very_short_episodes_are_analyzed(run):
    weak = network()
    weak.head.bias.data[0] += 0.07
    analyze_network(asked(episodes=12), run, trained(weak, "CartPole-v1", {}))
    steps = pd.read_csv(run.folder / "tables/ablations.csv").query("ablation == 'intact'")["steps"]
    assert steps.min() < 10 < steps.max(), "some episodes are shorter than the largest lag, and some are not"
    assert (run.folder / "figures/decoding_past.png").exists()


@pytest.fixture
def figures(run, monkeypatch):
    """The names of the figures that a run would draw. They are not drawn, which saves most of the time."""
    names = []
    monkeypatch.setattr(run, "save_figure", lambda name, figure: names.append(name))
    return names


def test_only_selected_analyses_run(run, figures):
    analyze_network(asked(pca=True, color="target"), run, trained(integrator()))
    assert figures == ["pca_variance", "pca_trajectories"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"color": "foo"}, "--color foo"), ({"pca": True, "color": "observation-99"}, "--color observation-99")],
)
def test_an_unknown_color_is_refused_after_one_episode(changes, said, run, figures, monkeypatch):
    played = []

    def counted(network, env_id, seeds, **options):
        played.extend(seeds)
        return record_episodes(network, env_id, seeds, **options)

    monkeypatch.setattr("plastic_mpn.analysis.measures.record_episodes", counted)
    with pytest.raises(UserError, match=said):
        analyze_network(asked(**changes), run, trained(integrator()))
    assert (len(played), figures) == (1, [])


def test_an_analysis_that_does_not_apply_is_refused_before_others_run(run, figures):
    run.record.config["core"] = "mlp"
    with pytest.raises(UserError, match="--m-matrix"):
        analyze_network(asked(pca=True, m_matrix=True), run, trained(network("mlp"), "CartPole-v1", {}, 12))
    assert figures == []


def test_m_that_stays_0_can_be_analyzed(run):
    run.record.config["core"] = "mpn-frozen"
    analyze_network(asked(), run, trained(network("mpn-frozen"), "CartPole-v1", {}, 12))
    assert run.results["episodes/norm"] == 0
    assert run.results["episodes/zeroed/difference"] == 0
    assert "episodes/M/participation_ratio" not in run.results


def test_a_core_without_m_gets_the_analyses_that_apply(run, figures, monkeypatch):
    messages = []
    monkeypatch.setattr(run, "message", messages.append)
    for core, part in (("gru", "its hidden state is set to zero"), ("mlp", "has no memory to change")):
        figures.clear()
        run.record.config["core"] = core
        analyze_network(asked(), run, trained(network(core), "CartPole-v1", {}, 12))
        assert "m_matrix" not in figures
        assert {"pca_variance", "decoding_past"} <= set(figures)
        assert ("ablations" in figures) == (core == "gru")
        assert any(part in message for message in messages)


def test_analyses_that_do_not_apply_are_refused(run):
    run.record.config["core"] = "mlp"
    on_cartpole = trained(network("mlp"), "CartPole-v1", {}, 12)
    with pytest.raises(UserError, match="--m-matrix: the core mlp has no M"):
        analyze_network(asked(m_matrix=True), run, on_cartpole)
    with pytest.raises(UserError, match="--ablate: the core mlp has no memory"):
        analyze_network(asked(ablate=True), run, on_cartpole)
    with pytest.raises(UserError, match=r"--decode: .* needs --episodes 5"):
        analyze_network(asked(decode=True, episodes=3), run, on_cartpole)


# ------------------------------------------------------------------------------------------------------- the figures


def test_the_mark_of_chance_is_drawn_above_an_equal_score():
    table = pd.DataFrame(
        {"state": ["h", "M"], "target": "sample", "lag": 0, "score": "accuracy", "value": 0.5, "chance": 0.5,
         "chance_low": 0.45, "chance_high": 0.55, "steps": 9}
    )  # fmt: skip
    figure = classes_figure(table, "an agent")
    layers = [(layer.geom.aes_params.get("shape"), layer.geom.aes_params["size"]) for layer in figure.layers[2:]]
    (_, score), (mark, chance) = layers
    assert mark == "|"
    assert chance > 1.5 * score


def test_decoded_numbers_and_classes_are_separate_figures_and_observations_have_names():
    table = pd.DataFrame(
        [{"state": "h", "target": target, "lag": 0, "score": score, "value": 0.5, "chance": 0.1, "chance_low": 0.0,
          "chance_high": 0.2, "steps": 9}
         for target, score in (("observation", "R2"), ("observation-0", "R2"), ("pole_velocity", "R2"))]
    )  # fmt: skip
    figure = entries_figure(table, "an agent", ("cart position", "pole angle"))
    labels = next(scale.labels for scale in figure.scales if "y" in scale.aesthetics)
    assert labels == ["pole velocity", "cart position"]
    assert classes_figure(table, "an agent") is None
    assert entries_figure(table.assign(score="accuracy"), "an agent") is None
    scale = next(
        scale for scale in classes_figure(table.assign(score="accuracy"), "an agent").scales if "x" in scale.aesthetics
    )
    assert scale.labels([0.25, 1.0]) == ["25%", "100%"]


def test_correct_trials_are_drawn_in_percent():
    table = pd.DataFrame(
        [{"ablation": name, "episode": number, "seed": number, "return": 4.0 - number, "steps": 9}
         for name in ("intact", "zeroed") for number in range(3)]
    )  # fmt: skip
    figure = ablation_figure(table, summarize_ablations(table), "M", 3, "an agent", trials=4)
    assert figure.data["return"].tolist() == [100, 75, 50] * 2
    assert figure.labels.y == "Correct trials (%)"
    assert figure.labels.caption == "Bars: 95% t interval of the mean."
    two = table[table["episode"] < 2]
    assert ablation_figure(two, summarize_ablations(two), "M", 3, "an agent").labels.caption == "", "there are no bars"


def test_heat_maps_of_m_have_sorted_units_and_named_inputs():
    weights = np.array([0.5, -2.0, 1.0])
    matrices = np.arange(4)[:, None, None] * (weights[:, None] * np.array([1.0, 2.0]))
    figure = matrices_figure(matrices, [1, 3], "an agent", ("place", "angle"))
    last = figure.data[(figure.data["step"] == "step 3") & (figure.data["input"] == 0)].sort_values("unit")
    # The sign of the component makes its largest weight positive.
    assert last["M"].tolist() == [-6.0, 1.5, 3.0]
    scale = next(scale for scale in figure.scales if "x" in scale.aesthetics)
    assert scale.labels == ["place", "angle"]


@pytest.mark.parametrize(("count", "words"), [(30, "the first 8 of 30 episodes"), (8, "single episodes")])
def test_the_caption_counts_the_thin_lines(count, words):
    table = pd.DataFrame(
        [{"episode": each, "step": step, "norm": 1.0, "share": 0.1} for each in range(count) for step in range(3)]
    )
    figure = modulation_figure(table, summarize_modulation(table), 0.034, "an agent")
    assert f"Thin: {words}." in figure.labels.caption
    assert figure.labels.caption.endswith("that have the step, 95% t interval of the mean.")
    two = table[table["episode"] < 2]
    without = modulation_figure(two, summarize_modulation(two), 0.034, "an agent")
    assert without.labels.caption.endswith("that have the step."), "there is no ribbon"
    assert (
        "share of M in the variance of the preactivation, over all steps and episodes: 3.4%" in figure.labels.subtitle
    )


@pytest.mark.parametrize(("returns", "low", "high"), [([500, 500], 450, 550), ([0, 0], -1, 1), ([3, 5], 3, 5)])
def test_equal_returns_have_an_axis_with_a_range(returns, low, high):
    table = pd.DataFrame(
        [{"ablation": name, "episode": number, "seed": number, "return": value, "steps": 9}
         for name in ("intact", "zeroed") for number, value in enumerate(returns)]
    )  # fmt: skip
    drawn = ablation_figure(table, summarize_ablations(table), "M", 3, "an agent").draw()
    bottom, top = drawn.axes[0].get_ylim()
    plt.close(drawn)
    assert (bottom, top) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert bottom < min(returns)
    assert top > max(returns)
