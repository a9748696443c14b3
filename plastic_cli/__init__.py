"""What the author of a rule imports; each name is loaded when it is first used."""

from __future__ import annotations

from plastic_cli.lazy import lazy_names

# As `typing` has it, whose import takes longer than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from plastic_cli.classifier.learner import Learner
    from plastic_cli.config.classifier import ClassifierAnalyzeConfig, ClassifierEvaluateConfig, ClassifierTrainConfig
    from plastic_cli.config.model import (
        AnalyzeConfig,
        Config,
        EvaluateConfig,
        OnlyWith,
        RenderConfig,
        TrainConfig,
        field,
    )
    from plastic_cli.errors import PlasticError, RunFailed, UserError
    from plastic_cli.plugins.hooks import hookimpl
    from plastic_cli.plugins.rule import Rule
    from plastic_cli.runs.run import Run
    from plastic_cli.runs.store import RunStore

_LAZY = {
    "AnalyzeConfig": "plastic_cli.config.model",
    "ClassifierAnalyzeConfig": "plastic_cli.config.classifier",
    "ClassifierEvaluateConfig": "plastic_cli.config.classifier",
    "ClassifierTrainConfig": "plastic_cli.config.classifier",
    "Config": "plastic_cli.config.model",
    "EvaluateConfig": "plastic_cli.config.model",
    "Learner": "plastic_cli.classifier.learner",
    "OnlyWith": "plastic_cli.config.model",
    "PlasticError": "plastic_cli.errors",
    "RenderConfig": "plastic_cli.config.model",
    "Rule": "plastic_cli.plugins.rule",
    "Run": "plastic_cli.runs.run",
    "RunFailed": "plastic_cli.errors",
    "RunStore": "plastic_cli.runs.store",
    "TrainConfig": "plastic_cli.config.model",
    "UserError": "plastic_cli.errors",
    "field": "plastic_cli.config.model",
    "hookimpl": "plastic_cli.plugins.hooks",
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
