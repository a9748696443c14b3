"""The moments of batch normalization of a network that was not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plastic_cli.classifier.fit import EVALUATION_BATCH
from plastic_cli.classifier.learner import Learner


def adapt_normalization(learner: Learner, x: Tensor) -> None:
    """Set the moments of batch normalization to those of its inputs for x (n, features); nothing else changes.

    A network that is trained has such moments too, so it differs from this one in its weights alone.
    """
    network = getattr(learner, "network", None)
    modules = network.modules() if isinstance(network, nn.Module) else ()
    # The class of all batch and instance normalization; torch has no public name for it.
    norms = [each for each in modules if isinstance(each, nn.modules.batchnorm._NormBase) and each.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    # To predict, a learner puts its network into evaluation mode, so each of these modules leaves it when it is called.
    hooks = [norm.register_forward_pre_hook(lambda module, _: module.train() and None) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for part in x.split(EVALUATION_BATCH):
            # One image has no variance.
            if len(part) > 1:
                learner.predict(part)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
        norm.eval()
