# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An agent and its memory
#
# A multi-plasticity network (MPN) keeps its memory in the synapses: a modulation matrix M changes while the agent acts.
# This notebook trains an MPN on CartPole for a short time and looks at M.

# %%
import torch

import plastic_cli as plastic

# %% [markdown]
# ## Train an agent
#
# 150 episodes are enough for a first look, and not for a result. The default is 500.

# %%
run = plastic.train("mpn", env="CartPole-v1", hidden=16, episodes=150, evaluate_every=25, test_episodes=20)
run

# %%
run.plot("train/return")

# %% [markdown]
# ## The agent as a module
#
# The network takes an observation and its state, and returns the value of each action and the next state. The state is
# the modulation matrix M.

# %%
network = run.load()
observation = torch.zeros(1, 4)
values, state = network(observation)
values

# %% [markdown]
# ## Play one episode by hand

# %%
import gymnasium

environment = gymnasium.make("CartPole-v1")
observation, _ = environment.reset(seed=1)
state, rewards, done = None, 0.0, False
with torch.no_grad():
    while not done:
        values, state = network(torch.tensor(observation)[None], state)
        observation, reward, terminated, truncated, _ = environment.step(int(values.argmax()))
        rewards, done = rewards + float(reward), terminated or truncated
rewards

# %% [markdown]
# ## Look inside
#
# The principal components of the activity, and the control: the same agent with frozen plasticity.

# %%
analysis = plastic.analyze(run, pca=True, ablate=True, episodes=5)
analysis.results

# %%
analysis.figures["pca_trajectories"]

# %% [markdown]
# ## The film
#
# The environment, the values of the actions and M, frame by frame.

# %%
plastic.render(run, frames=60)
