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
# A credit rule fills the gradients of a torch module, and an optimizer applies them. Here, torchvision's ResNet-18 learns
# the digits by three rules: random feedback, node perturbation and local plasticity. Backpropagation is the control.

# %%
import torch
import torchvision
from plastic_eglp import AlwaysOnController, LocalPlasticity
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

import plastic_cli as plastic

RULES = {
    "backpropagation": lambda model: None,
    "random feedback": lambda model: RandomFeedback(model, feedback="fixed"),
    "node perturbation": lambda model: NodePerturbation(
        model, perturbations=4, noise=0.01, normalize=True, across_samples=False
    ),
    "local plasticity": lambda model: LocalPlasticity(
        model, readout="fc", events=AlwaysOnController()
    ),
}


def resnet(rule):
    def make(seed):
        model = torchvision.models.resnet18(num_classes=10)
        model.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        return model, optimizer, RULES[rule](model)

    return make


runs = [
    plastic.fit(resnet(rule), rule=rule.replace(" ", "-"), images=True, epochs=2)
    for rule in RULES
]

# %% [markdown]
# All four runs have seen 2874 images. No line of the network was changed.

# %%
plastic.plot(runs, "test/accuracy", by="rule", width=7)

# %% [markdown]
# ## Why they differ
#
# After each epoch, a run measures the angle between one update of its rule and the gradient of the same batch. An angle of 90
# degrees means that the update has nothing to do with the gradient. The weights of the readout are the last layer.

# %%
angles = plastic.RunStore("runs").metrics()
angles = angles[(angles["metric"] == "angle") & (angles["step"] == 2)]
angles = angles[angles["labels"].notna()].merge(
    plastic.RunStore("runs").runs()[["run", "rule"]]
)
angles.pivot_table(index="labels", columns="rule", values="value", sort=False).round(1)

# %% [markdown]
# The operations that each rule needs for learning, as a multiple of one forward pass:

# %%
{
    run.rule: round(
        run.results["train/learning_flops"] / run.results["train/forward_flops"], 1
    )
    for run in runs[1:]
}

# %% [markdown]
# [Any rule on any network](../any-network.md) shows all combinations of rules, networks and optimizers.
