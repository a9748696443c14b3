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
# A multi-plasticity network (rule `mpn`) has no recurrent connections. Its memory is the matrix M: a Hebbian change of
# the input weights that builds up during an episode. The task GoNogo shows a stimulus and then, after a delay, asks for
# a response. An agent without memory can only guess.

# %%
import plastic_cli as plastic

# %% [markdown]
# ## Train an agent and a control
#
# Both learn by actor-critic (A2C). The control is the same network, with M fixed at 0.

# %%
options = {"algorithm": "a2c", "total_steps": 150_000, "seed": 0}
agent = plastic.train("mpn", **options)
agent

# %%
control = plastic.train("mpn", core="mpn-frozen", **options)
plastic.plot([agent, control], "validation/return")

# %% [markdown]
# An episode has ten trials, and on average half of them are go trials. Each correct response to a go trial gives a
# reward of 1. The best possible return is therefore 5 on average.

# %% [markdown]
# ## Is the memory in M?
#
# `ablate` repeats the same episodes with M intact, set to zero, frozen in the middle of the episode, and shuffled.

# %%
analysis = plastic.analyze(agent, ablate=True, episodes=20)
analysis.tables["ablations_mean"][["ablation", "mean", "low", "high"]]

# %%
analysis.figures["ablations"]

# %% [markdown]
# ## Use the trained network
#
# The network takes an observation and a state. It returns the logits of the actions, the value, and the new state. The
# state is M. (An agent that was trained by Q-learning returns Q-values instead.)

# %%
import gymnasium
import pandas as pd
import torch

import plastic_mpn.environments.tasks  # registers the tasks

network = agent.load()
environment = gymnasium.make("plastic/GoNogo-v0")
observation, _ = environment.reset(seed=1)
state, steps = network.init_state(1), []
with torch.no_grad():
    for step in range(45):  # three trials of 15 steps
        x = torch.tensor(observation)[None].float()
        (logits, value), state = network(x, state)
        action = int(logits.argmax())
        observation, reward, *_ = environment.step(action)
        size = float(state.norm())
        steps.append(
            {
                "step": step,
                "size of M": size,
                "response": action,
                "reward": float(reward),
            }
        )

steps = pd.DataFrame(steps)
steps[steps["response"] == 1]

# %%
from plotnine import aes, facet_wrap, geom_step, ggplot, labs

long = steps.melt("step", var_name="part")
parts = facet_wrap("part", ncol=1, scales="free_y")
ggplot(long, aes("step", "value")) + geom_step() + parts + labs(y="")

# %% [markdown]
# ## The film
#
# The film shows the observation, M with its largest units, and the action at each step.

# %%
plastic.render(agent, frames=45)
