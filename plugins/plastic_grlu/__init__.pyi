import plastic_cli

from .credit import NodePerturbation as NodePerturbation
from .learner import GRLULearner as GRLULearner
from .rule import forward as forward
from .rule import grlu_update as grlu_update

def plastic_rule() -> plastic_cli.Rule: ...
