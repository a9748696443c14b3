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
# # Any rule on any network
#
# A credit rule fills the gradients of a torch module, and an optimizer applies them. Here torchvision's ResNet-18 learns
# the digits by three rules. Random feedback teaches all layers, node perturbation the last block and the readout, and
# local plasticity the first layer and the readout. The argument `modules` says so; all other weights stay random.

# %%
from torch import nn, optim
from torchvision.models import resnet18

import plastic_cli as plastic
from plastic_eglp import AlwaysOnController, LocalPlasticity
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

rules = {
    "random-feedback": lambda model: RandomFeedback(model, feedback="fixed"),
    "node-perturbation": lambda model: NodePerturbation(
        model, noise=0.01, normalize=True, modules=["layer4.1", "fc"]
    ),
    "local-plasticity": lambda model: LocalPlasticity(
        model, events=AlwaysOnController(), modules=["conv1", "fc"]
    ),
}


def resnet(rule):
    def make(seed):
        model = resnet18(num_classes=10)
        model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)  # gray images
        optimizer = optim.Adam(model.parameters(), lr=0.001)
        return model, optimizer, rules[rule](model)

    return make


runs = [
    plastic.fit(resnet(rule), rule=rule, images=True, epochs=2)
    for rule in rules
]

# %% [markdown]
# Each network has seen the 1437 images twice. Nothing else of ResNet-18 was changed: its layers, the names of its
# parameters and its `state_dict` are those of torchvision.

# %%
plastic.plot(runs, "test/accuracy", by="rule", width=7)

# %% [markdown]
# ## Angles
#
# After each epoch, a run measures the angle between one update of its rule and the gradient of the same batch. An angle of
# 90 degrees means that the update has nothing to do with the gradient.

# %%
store = plastic.RunStore("runs")
metrics = store.metrics().merge(store.runs()[["run", "rule"]])
last = metrics[(metrics["metric"] == "angle") & (metrics["step"] == 2)]
last.pivot_table(
    index="labels", columns="rule", values="value", sort=False
).round(1)

# %% [markdown]
# Operations of learning, as a multiple of one forward pass:

# %%
{
    run.rule: round(
        run.results["train/learning_flops"]
        / run.results["train/forward_flops"],
        1,
    )
    for run in runs
}

# %% [markdown]
# The page [Any rule on any network](../any-network.md) compares all combinations of rules, networks and optimizers.
