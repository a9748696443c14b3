"""The drop-in optimizer: gated SGD or gated Adam for any PyTorch program."""

from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer

__all__ = ["SelectivePlasticityOptimizer"]
