import plastic_cli

from .networks.agents import MPNDQN as MPNDQN
from .networks.agents import ActorCritic as ActorCritic
from .networks.agents import Readout as Readout
from .networks.cores import MPN as MPN
from .networks.cores import Core as Core
from .networks.cores import make_core as make_core

def plastic_rule() -> plastic_cli.Rule: ...
