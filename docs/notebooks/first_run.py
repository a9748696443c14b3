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
# # First run
#
# This notebook trains a rule, looks at the result, and compares it with backpropagation. It takes less than a minute.

# %%
import plastic_cli as plastic

# %% [markdown]
# ## Train
#
# `plastic.train` is the command `plastic train` as a function. The options have the same names: `--perturbations 16`
# on the command line is `perturbations=16` here. The data set `digits` comes with scikit-learn, so nothing is
# downloaded.

# %%
options = {"dataset": "digits", "hidden": 64, "epochs": 5}
run = plastic.train("grlu", perturbations=16, seed=0, **options)
run

# %% [markdown]
# The run is stored in a folder. In a shell, `plastic runs` lists it as well.

# %%
run.results["test/accuracy"], run.status, run.folder.name

# %% [markdown]
# A wrong option raises a `ValueError` that suggests the right name.

# %%
try:
    plastic.train("grlu", perturbation=16)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Look at the metrics
#
# `run.metrics()` is a pandas table with one row per metric and step. `run.plot` draws a learning curve.

# %%
run.metrics()[["split", "step", "metric", "value"]].tail(4)

# %%
run.plot("test/accuracy")

# %% [markdown]
# ## Use the trained network
#
# `run.load()` returns the network as a `torch.nn.Module`. `run.data()` returns the data set with the normalization and
# splits of the training.

# %%
network, data = run.load(), run.data()
predictions = network(data.test.x).argmax(1)
float((predictions == data.test.y).double().mean())

# %% [markdown]
# ## Evaluate, analyze, render
#
# Each command of a rule is a function: `plastic.evaluate`, `plastic.analyze` and `plastic.render`.

# %%
plastic.evaluate(run, corruption=["gaussian-noise:0.5"])

# %%
analysis = plastic.analyze(run, probe=True)
analysis.tables["probe"][["layer", "network", "accuracy"]]

# %% [markdown]
# The film shows the weights of hidden units over training.

# %%
plastic.render(run)

# %% [markdown]
# ## Compare with backpropagation
#
# Every result needs a control. Here the control is the same network, trained along the gradient with the same steps.

# %%
control = plastic.train("grlu", update="backprop", seed=0, **options)
plastic.compare(run, control)

# %%
plastic.plot([run, control], "test/accuracy")

# %% [markdown]
# One seed is not enough. Seed 0 of each network is trained already. The next cell trains the seeds 1 and 2 of each
# network, which takes half a minute. The report then shows the mean over the three seeds and its confidence interval.

# %%
plastic.train("grlu", perturbations=16, seed=1, seeds=2, **options)
plastic.train("grlu", update="backprop", seed=1, seeds=2, **options)
plastic.report()
