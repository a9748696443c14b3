"""What the author of a rule imports; each name is loaded when it is first used."""

from __future__ import annotations

from plastic_cli.lazy import lazy_names

# As `typing` has it, whose import takes longer than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from plastic_cli.config import (
        AnalyzeConfig,
        ClassifierAnalyzeConfig,
        ClassifierEvaluateConfig,
        ClassifierTrainConfig,
        Config,
        EvaluateConfig,
        OnlyWith,
        RenderConfig,
        TrainConfig,
        field,
    )
    from plastic_cli.errors import PlasticError, RunFailed, UserError
    from plastic_cli.hooks import hookimpl
    from plastic_cli.learning.learner import Learner
    from plastic_cli.rule import Rule
    from plastic_cli.runs.run import Run
    from plastic_cli.runs.store import RunStore

_LAZY = {
    "AnalyzeConfig": "plastic_cli.config",
    "ClassifierAnalyzeConfig": "plastic_cli.config",
    "ClassifierEvaluateConfig": "plastic_cli.config",
    "ClassifierTrainConfig": "plastic_cli.config",
    "Config": "plastic_cli.config",
    "EvaluateConfig": "plastic_cli.config",
    "Learner": "plastic_cli.learning.learner",
    "OnlyWith": "plastic_cli.config",
    "PlasticError": "plastic_cli.errors",
    "RenderConfig": "plastic_cli.config",
    "Rule": "plastic_cli.rule",
    "Run": "plastic_cli.runs.run",
    "RunFailed": "plastic_cli.errors",
    "RunStore": "plastic_cli.runs.store",
    "TrainConfig": "plastic_cli.config",
    "UserError": "plastic_cli.errors",
    "field": "plastic_cli.config",
    "hookimpl": "plastic_cli.hooks",
}

__all__ = [
    "AnalyzeConfig",
    "ClassifierAnalyzeConfig",
    "ClassifierEvaluateConfig",
    "ClassifierTrainConfig",
    "Config",
    "EvaluateConfig",
    "Learner",
    "OnlyWith",
    "PlasticError",
    "RenderConfig",
    "Rule",
    "Run",
    "RunFailed",
    "RunStore",
    "TrainConfig",
    "UserError",
    "field",
    "hookimpl",
]

__getattr__ = lazy_names(__name__, _LAZY)
