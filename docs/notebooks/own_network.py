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
# # Your own network and your own data
#
# plastic trains any torch module with an optimizer, and stores it as a run. Any arrays can be a data set.

# %%
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import plastic_cli as plastic

# %% [markdown]
# ## Your own data
#
# A data set is an `.npz` file with the arrays `x_train`, `y_train`, `x_test` and `y_test`. Images are (n, height,
# width) or (n, channels, height, width). uint8 pixels are divided by 255, and other numbers stay as they are. Here the
# classes are even and odd digits.

# %%
digits = load_digits()
x, y = (255 * digits.images / 16).astype(np.uint8), digits.target % 2
order = np.random.default_rng(0).permutation(len(x))
train, test = order[:1400], order[1400:]
np.savez(
    "parity.npz",
    x_train=x[train],
    y_train=y[train],
    x_test=x[test],
    y_test=y[test],
)

# %% [markdown]
# All rules that classify images can use it, in Python and in the shell (`plastic train eglp --dataset parity.npz`).

# %%
local = plastic.train("eglp", dataset="parity.npz", hidden=64, epochs=5)
local.results

# %% [markdown]
# ## Your own network
#
# A convolutional network takes images, so `images=True`. The function receives the seed and returns the module and its
# optimizer. The random numbers of torch are seeded before the call.


# %%
def network(seed):
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 2),
    )
    return module, torch.optim.Adam(module.parameters(), lr=0.003)


shared = {"dataset": "parity.npz", "images": True, "epochs": 5, "seeds": 2}
runs = plastic.fit(network, rule="small-convnet", **shared)
[run.results["test/accuracy"] for run in runs]

# %% [markdown]
# ## A rule of plastic on your network
#
# The optimizer of selective plasticity works on every module. It is made for a sequence of tasks. On a single task it
# makes little difference, as the figure shows.

# %%
from plastic_selective import SelectivePlasticityOptimizer


def protected(seed):
    module, _ = network(seed)
    return module, SelectivePlasticityOptimizer(
        module.parameters(), lr=0.003, base="adam"
    )


selective = plastic.fit(protected, rule="small-convnet-selective", **shared)

# %%
plastic.plot([*runs, *selective], "test/accuracy", by="rule")

# %% [markdown]
# ## The trained module
#
# In this session, `run.load()` returns the trained module. In another session, build the module again and restore it:
# `plastic.RunStore("runs").run("ID").restore(module)`.

# %%
module, data = runs[0].load(), runs[0].data()
module.eval()
with torch.no_grad():
    logits = module(data.test.x.unflatten(1, data.image_shape))
float((logits.argmax(1) == data.test.y).double().mean())
