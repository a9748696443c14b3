import plastic_cli

from .continual.trained import load_stream as load_stream
from .optimizer.optimizer import SelectivePlasticityOptimizer as SelectivePlasticityOptimizer

def plastic_rule() -> plastic_cli.Rule: ...
