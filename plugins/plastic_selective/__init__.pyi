import plastic_cli

from .optimizer.optimizer import SelectivePlasticityOptimizer as SelectivePlasticityOptimizer

def plastic_rule() -> plastic_cli.Rule: ...
