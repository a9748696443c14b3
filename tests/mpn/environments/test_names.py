"""Names of observations and actions."""

import gymnasium
import numpy as np
import pytest

from plastic_cli.errors import UserError
from plastic_mpn.environments.names import names_of
from plastic_mpn.environments.tasks import TASKS
from plastic_mpn.environments.vector import make_environment


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1"])
def test_the_classic_environments_have_their_documented_names(env_id):
    environment = make_environment(env_id)
    names = names_of(environment)
    assert len(names.observations) == environment.observation_space.shape[0]
    assert len(names.actions) == environment.action_space.n
    assert len(set(names.observations)) == len(names.observations)
    # A step of CartPole takes 0.02 s and one of Acrobot 0.2 s; MountainCar has no unit of time.
    assert names.step_seconds == {"CartPole-v1": 0.02, "Acrobot-v1": 0.2, "MountainCar-v0": None}[env_id]


def test_documented_names_are_in_the_order_of_the_documentation():
    names = names_of(make_environment("CartPole-v1"))
    assert names.observations == ("cart position", "cart velocity", "pole angle", "pole angular velocity")
    environment = make_environment("CartPole-v1")
    environment.reset(seed=0)
    before = environment.unwrapped.state[1]
    assert environment.step(names.actions.index("push right"))[0][1] > before


@pytest.mark.parametrize("env_id", list(TASKS))
def test_every_task_names_its_actions(env_id):
    environment = make_environment(env_id)
    names = names_of(environment)
    assert len(names.actions) == environment.action_space.n
    assert not names.actions[0].startswith("action")
    assert (names.step_seconds is None) == ("Integration" in env_id)
    assert names.observation(0) == ("observation 0" if "Integration" in env_id else environment.unwrapped.entries[0])


def test_names_of_the_user_take_precedence_and_must_be_as_many_as_needed():
    environment = make_environment("plastic/GoNogo-v0")
    names = names_of(environment, ["a", "b", "c", "d"], ["wait", "press"])
    assert (names.observations, names.actions) == (("a", "b", "c", "d"), ("wait", "press"))
    # An empty list is that of an option that is not given.
    assert names_of(environment, (), ()).actions == ("fixate", "go")
    with pytest.raises(UserError, match="--labels: it has 1 names, but the environment has 4 entries of an obs"):
        names_of(environment, ["a"])
    with pytest.raises(UserError, match="--action-labels: it has 3 names, but the environment has 2 actions"):
        names_of(environment, None, ["a", "b", "c"])


class Own(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)


def test_an_environment_of_the_user_can_name_its_entries_and_actions():
    assert names_of(Own()).actions == ("action 0", "action 1", "action 2")
    assert names_of(Own()).observations == ()
    named = type("Named", (Own,), {"entries": ("left", "right"), "actions": ["a", "b", "c"], "step_seconds": 0.5})()
    assert names_of(named).observations == ("left", "right")
    assert names_of(named).actions == ("a", "b", "c")
    assert names_of(named).step_seconds == 0.5
    # Attributes of another meaning are not names.
    other = type("Other", (Own,), {"entries": 2, "actions": ("a", "b"), "step_seconds": "fast"})()
    assert names_of(other) == names_of(Own())


def test_encoded_states_are_numbered_and_their_actions_named():
    environment = gymnasium.wrappers.FlattenObservation(gymnasium.make("FrozenLake-v1"))
    names = names_of(environment)
    assert names.observations[:2] == ("state 0", "state 1")
    assert len(names.observations) == 16
    assert names.actions == ("left", "down", "right", "up")


def test_a_wrapper_that_changes_the_observation_loses_its_names():
    stacked = gymnasium.wrappers.FlattenObservation(
        gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 3)
    )
    names = names_of(stacked)
    assert names.observations == ()
    assert names.actions == ("push left", "push right")
    assert np.prod(stacked.observation_space.shape) == 12
