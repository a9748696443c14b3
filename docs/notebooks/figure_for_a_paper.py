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
# A small study: how does node perturbation depend on the number of perturbations, and how far is it from
# backpropagation?

# %%
import plastic_cli as plastic

# %% [markdown]
# ## The runs
#
# `grid` makes one run for each combination and each seed. `workers` is the number of runs at once. Runs that the store
# holds already are not repeated, so the cell can be run again.

# %%
shared = {"dataset": "digits", "hidden": 64, "epochs": 5, "seeds": 3}
runs = plastic.train("grlu", grid={"perturbations": [1, 4, 16]}, workers=2, **shared)
control = plastic.train("backprop", grid={"learning_rate": [0.001]}, workers=2, **shared)

# %% [markdown]
# ## The figure
#
# Figures are plotnine figures: add layers, themes and scales, and save them in any format.

# %%
from plotnine import labs, theme

figure = plastic.plot(runs, "test/accuracy", by="perturbations")
figure = figure + labs(title="", x="Epoch") + theme(figure_size=(4.5, 3))
figure.save("perturbations.pdf", verbose=False)
figure

# %% [markdown]
# ## The table
#
# The report of these runs as a pandas table, and as LaTeX with booktabs.

# %%
report = plastic.report()
report.results

# %%
print(report.latex(caption="Accuracy on the digits.", label="tab:digits"))

# %% [markdown]
# ## What to write next to it
#
# The interval and its method belong to the table. `plastic cite` prints the reference of the rule and of the program.

# %%
print(plastic.cite("grlu"))
