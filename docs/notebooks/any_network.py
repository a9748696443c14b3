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
# A credit rule fills the gradients of a torch module, and an optimizer applies them. Here torchvision's ResNet-18 learns the
# digits by three rules: random feedback, node perturbation, and local plasticity during events.

# %%
from torch import nn, optim
from torchvision.models import resnet18

import plastic_cli as plastic
from plastic_eglp import LocalPlasticity
from plastic_grlu import NodePerturbation
from plastic_metafa import RandomFeedback

rules = {
    "random-feedback": lambda model: RandomFeedback(model, feedback="fixed"),
    "node-perturbation": lambda model: NodePerturbation(
        model, perturbations=4, noise=0.01, normalize=True, across_samples=False
    ),
    "event-gated": lambda model: LocalPlasticity(model, feedback="direct"),
}


def resnet(rule):
    def make(seed):
        model = resnet18(num_classes=10)
        model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)  # gray images
        optimizer = optim.Adam(model.parameters(), lr=0.001)
        return model, optimizer, rules[rule](model)

    return make


runs = [
    plastic.fit(resnet(rule), rule=rule, images=True, epochs=1)
    for rule in rules
]

# %% [markdown]
# Each network has seen the 1437 images once. Nothing else of ResNet-18 was changed: its layers, its names of parameters and
# its `state_dict` are those of torchvision.

# %%
plastic.RunStore("runs").runs()[
    ["rule", "test/accuracy", "training_seconds"]
].round(2)

# %% [markdown]
# ## Why they differ
#
# After each epoch, a run measures the angle between one update of its rule and the gradient of the same batch. An angle of
# 90 degrees means that the update has nothing to do with the gradient.

# %%
plastic.plot(runs, "train/angle", final=True, width=7)

# %% [markdown]
# The same for each layer:

# %%
metrics = (
    plastic.RunStore("runs")
    .metrics()
    .merge(plastic.RunStore("runs").runs()[["run", "rule"]])
)
last = metrics[
    (metrics["metric"] == "angle")
    & (metrics["step"] == 1)
    & metrics["labels"].notna()
]
last.pivot_table(
    index="labels", columns="rule", values="value", sort=False
).round(1)

# %% [markdown]
# Operations that learning needs in addition to one forward pass, as a multiple of this pass:

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
