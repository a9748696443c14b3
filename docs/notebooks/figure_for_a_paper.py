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
# # A figure and a table for a paper
#
# This notebook makes two things: a LaTeX table of three rules with five seeds each, and a PDF figure of the accuracy
# for several values of an option.

# %%
import plastic_cli as plastic

# %% [markdown]
# ## The runs
#
# All rules get the same data, sizes of layers and number of epochs. Their optimizers, batch sizes and normalization
# differ: `plastic compare` lists the options. With `update="backprop"`, grlu follows the gradient with the same steps.

# %%
shared = {"dataset": "digits", "hidden": 64, "epochs": 20, "seeds": 5}
for rule in ("grlu", "eglp", "backprop"):
    plastic.train(rule, **shared)

# %% [markdown]
# ## The table
#
# `plastic.report` summarizes all runs in the store. `report.results` is the same table in pandas, with more columns.

# %%
report = plastic.report()
report

# %%
print(report.latex(caption="Accuracy on the digits.", label="tab:digits"))

# %% [markdown]
# In the shell, `plastic report --format latex` prints the same.

# %% [markdown]
# ## The figure
#
# The next cell trains one network for each number of perturbations and each seed. (`grid={"perturbations": [1, 4, 16]}`
# does the same, but each run has its own process, and runs that are already in the store are skipped.)

# %%
shared = {"hidden": 64, "epochs": 5, "seeds": 3}
runs = []
for perturbations in (1, 4, 16, 64):
    runs += plastic.train("grlu", perturbations=perturbations, **shared)
figure = plastic.plot(runs, "test/accuracy", by="perturbations")
figure

# %% [markdown]
# The result is a plotnine figure: add layers, themes and scales, and save it in any format.

# %%
from plotnine import element_text, labs, theme

size = theme(figure_size=(3.4, 2.4), text=element_text(size=8))
small = figure + labs(title="", subtitle="", caption="") + size
small.save("perturbations.pdf", verbose=False)
small

# %% [markdown]
# For your own figures, the same values are in a table:

# %%
table = plastic.RunStore("runs").runs()
table[["rule", "seed", "config.perturbations", "test/accuracy"]].tail()

# %% [markdown]
# ## The references

# %%
print(plastic.cite("grlu"))
