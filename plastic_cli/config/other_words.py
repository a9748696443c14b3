"""Which option a user means who types a word of another program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from plastic_cli.errors import did_you_mean

OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "rate", "step_size", "eta", "eta0", "learning_rate_init"), ("learning_rate",)),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_epochs", "max_iter"), ("epochs", "episodes")),
    **dict.fromkeys(("iter", "iters", "n_iter", "num_steps", "max_steps"), ("iterations", "total_steps", "epochs")),
    **dict.fromkeys(("n_episodes", "num_episodes"), ("episodes", "epochs")),
    **dict.fromkeys(("timesteps", "total_timesteps"), ("total_steps", "iterations")),
    **dict.fromkeys(("bs", "batch", "minibatch_size", "train_batch_size"), ("batch_size",)),
    **dict.fromkeys(
        ("hidden_size", "hidden_sizes", "hidden_dim", "hidden_units", "hidden_layers", "hidden_layer_sizes", "width"),
        ("hidden",),
    ),
    **dict.fromkeys(("optim", "opt", "solver"), ("optimizer", "update")),
    **dict.fromkeys(("random_state", "random_seed"), ("seed",)),
    **dict.fromkeys(("n_seeds", "repeats", "repetitions"), ("seeds",)),
    **dict.fromkeys(("task", "environment", "env_id"), ("env", "dataset")),
    **dict.fromkeys(("gpu", "cuda", "no_cuda", "cpu"), ("device",)),
    **dict.fromkeys(("n_jobs", "jobs", "num_workers", "processes"), ("workers",)),
    **dict.fromkeys(("load", "continue", "checkpoint", "load_checkpoint"), ("resume", "run")),
    **dict.fromkeys(("out", "output", "output_dir", "save_dir", "log_dir", "logdir", "results"), ("runs",)),
}
"""Words of PyTorch's, scikit-learn's and other programs, and the options they can mean here, the first that exists."""


def similar_option(word: str, options: Iterable[str], published: Mapping[str, str] | None = None) -> str:
    """Return " Did you mean 'x'?" for the option that a word of another program means, else for the most similar one.

    `word` and `options` are names such as batch_size, or options such as --batch-size. published: words of the
    published program of a rule, and its options here. Returns an empty string if no option is meant or similar.
    """
    known = {_plain(option): option for option in options}
    meant = [(published or {}).get(_plain(word), ""), *OTHER_WORDS.get(_plain(word), ())]
    for name in meant:
        if name in known:
            return f" Did you mean '{known[name]}'?"
    return did_you_mean(word, known.values())


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_").casefold()
