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
# # Your own rule in one cell
#
# You can try a rule without writing a package. An object with two methods is enough: one learns from a batch, and one
# predicts.

# %%
import torch

import plastic_cli as plastic

# %% [markdown]
# ## The rule
#
# This is a three-factor rule. The change of a hidden synapse is the product of three factors: the presynaptic activity,
# the slope of the postsynaptic unit, and the error at the output. Fixed random weights broadcast this error to the
# hidden units. `train_batch(x, y)` learns from one batch of images. `predict(x)` returns one number per class.
# `features(x)` is optional: with it, analyses see the hidden layer.


# %%
class BroadcastError:
    def __init__(self, seed, hidden_rate=0.1, readout_rate=0.1, units=64):
        generator = torch.Generator().manual_seed(seed)
        self.hidden = torch.randn(64, units, generator=generator) / 8
        self.readout = torch.zeros(units, 10)
        self.broadcast = torch.randn(10, units, generator=generator)
        self.hidden_rate, self.readout_rate = hidden_rate, readout_rate

    def features(self, x):
        return [torch.relu(x @ self.hidden)]

    def predict(self, x):
        return self.features(x)[0] @ self.readout

    def train_batch(self, x, y):
        (h,) = self.features(x)
        logits = h @ self.readout
        error = torch.nn.functional.one_hot(y, 10) - logits.softmax(1)
        self.readout += self.readout_rate * h.T @ error / len(x)
        signal = (error @ self.broadcast) * (h > 0)
        self.hidden += self.hidden_rate * x.T @ signal / len(x)
        return torch.nn.functional.cross_entropy(logits, y)


# %% [markdown]
# ## Train it
#
# `plastic.fit` stores the learner as a run: with metrics and a checkpoint after each epoch. The learner is given as a
# function of the seed, so that several seeds are possible. `settings` are values such as a learning rate: runs with
# different settings are different rows of the report.

# %%
runs = plastic.fit(
    lambda seed: BroadcastError(seed, hidden_rate=0.1),
    rule="broadcast-error",
    dataset="digits",
    epochs=10,
    seeds=3,
    settings={"hidden_rate": 0.1},
)
runs

# %% [markdown]
# ## Train a control
#
# The control shows what the readout achieves alone, on random features. It is the same network with a learning rate of
# 0 in the hidden layer.

# %%
controls = plastic.fit(
    lambda seed: BroadcastError(seed, hidden_rate=0.0),
    rule="broadcast-error",
    dataset="digits",
    epochs=10,
    seeds=3,
    settings={"hidden_rate": 0.0},
)

# %%
plastic.plot([*runs, *controls], "test/accuracy", by="hidden_rate")

# %% [markdown]
# The report shows both settings, with the mean and its interval over three seeds. `plastic report` in a shell shows
# the same table.

# %%
plastic.report()

# %% [markdown]
# ## Look inside
#
# Evaluations and analyses work as for any rule.

# %%
plastic.evaluate(runs[0], corruption=["pixel-noise:0.1", "rotation:15"])

# %%
analysis = plastic.analyze(runs[0], probe=True, sparsity=True)
analysis.tables["sparsity"]

# %% [markdown]
# ## Stop and continue
#
# If you interrupt a cell that trains, the run is kept. This call continues it. The results are exactly those of a run
# that was never stopped:
#
# ```python
# plastic.fit(BroadcastError(seed=0), resume="ID of the run")
# ```
#
# ## From the notebook to a plugin
#
# To make a package of the rule, type `plastic new-rule broadcast_error` in a shell. It writes a plugin with the
# commands `train`, `eval`, `analyze` and `render`. Move the class into its `learner.py`. The methods there have the
# same names. The template also has `features`, `state_dict` and `load_state_dict`: change them to fit the class.
