import plastic_cli

from .adaptation import Network as Network
from .adaptation import Plasticity as Plasticity
from .adaptation import adapt as adapt
from .adaptation import adapt_to as adapt_to
from .adaptation import draw_network as draw_network
from .credit import RandomFeedback as RandomFeedback
from .network import AdaptiveNetwork as AdaptiveNetwork
from .rule import TERMS as TERMS
from .rule import Term as Term
from .rule import plasticity_update as plasticity_update

def plastic_rule() -> plastic_cli.Rule: ...
