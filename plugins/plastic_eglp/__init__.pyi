import plastic_cli

from .credit import LocalPlasticity as LocalPlasticity
from .events import AlwaysOnController as AlwaysOnController
from .events import FixedRateController as FixedRateController
from .events import NeverController as NeverController
from .events import SampledController as SampledController
from .events import ThresholdController as ThresholdController
from .layers import LocalConv2d as LocalConv2d
from .layers import LocalLinear as LocalLinear
from .learner import EGLPLearner as EGLPLearner
from .network import EGLPNetwork as EGLPNetwork

def plastic_rule() -> plastic_cli.Rule: ...
