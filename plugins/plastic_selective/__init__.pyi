import plastic_cli

from .analysis.eligibility import plot_eligibility as plot_eligibility
from .continual.replay import MemoryBuffer as MemoryBuffer
from .continual.replay import ReplayBuffer as ReplayBuffer
from .continual.trained import load_stream as load_stream
from .optimizer.optimizer import SelectivePlasticityOptimizer as SelectivePlasticityOptimizer

def plastic_rule() -> plastic_cli.Rule: ...
