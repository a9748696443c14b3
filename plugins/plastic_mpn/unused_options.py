"""Which training options mean nothing beside the chosen algorithm and core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import UserError
from plastic_cli.options import as_typed, asked_values

if TYPE_CHECKING:
    from plastic_mpn.commands import Train

_ALGORITHMS = {
    ("dqn",): (
        *("num_episodes", "epsilon_start", "epsilon_end", "epsilon_decay", "buffer_size", "learning_starts"),
        *("train_every", "tau", "target_every", "double_q", "replay", "burn_in", "sequence_length"),
    ),
    ("a2c",): ("rollout", "entropy_coefficient", "value_coefficient", "gae_lambda", "normalise_advantages"),
    ("supervised",): (
        *("classes", "steps", "delay", "context", "input_noise", "l1"),
        *("minimum_batches", "maximum_batches", "target_accuracy"),
    ),
    ("dqn", "supervised"): ("batch_size",),
    ("dqn", "a2c"): (
        *("gamma", "total_steps", "num_envs"),
        *("evaluate_every", "evaluation_episodes", "checkpoint_every", "test_episodes"),
    ),
}
_MEMORY = ("eta", "draw_eta", "lambda_decay", "lambda_max", "modulation_bound", "learn_eta", "learn_lambda")
_UNITS = ("activation", "bias")
_SEQUENCES = ("burn_in", "sequence_length")


def unused_options(
    *, algorithm: str | None = None, core: str | None = None, replay: str | None = None
) -> dict[str, str]:
    """Return the options that mean nothing beside these choices, each with what it belongs to; None: not chosen."""
    found = {}
    if replay == "states":
        found.update(dict.fromkeys(_SEQUENCES, "--replay sequences"))
    for algorithms, names in _ALGORITHMS.items():
        if algorithm is not None and algorithm not in algorithms:
            found.update(dict.fromkeys(names, " or ".join(f"--algorithm {name}" for name in algorithms)))
    if core == "mpn-frozen":
        found.update(dict.fromkeys(_MEMORY, "the cores whose M changes, such as mpn"))
    elif core is not None and not core.startswith("mpn"):
        found.update(dict.fromkeys((*_MEMORY, *_UNITS), "the cores whose name begins with mpn"))
    return found


def refuse_unused_options(config: Train) -> None:
    """Raise UserError where an option was given a value that means nothing beside the algorithm and the core.

    A value that is the default, or that another option implies, was not asked for.
    """
    asked = asked_values(config)
    unused = unused_options(algorithm=config.algorithm, core=config.core, replay=config.replay)
    for name in [name for name in asked if name in unused]:
        others = {other: value for other, value in asked.items() if other != name}
        implied = (type(config).implied(chosen) for chosen in (others, {"algorithm": config.algorithm}))
        if any(name in meant and meant[name] == asked[name] for meant in implied):
            continue
        raise UserError(
            f"{as_typed(name, asked[name])} does nothing with --algorithm {config.algorithm} and --core"
            f" {config.core}: it belongs to {unused[name]}. Leave it out."
        )
