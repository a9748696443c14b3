"""The analysis of a trained network that belongs to no run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.config.classifier import NetworkAnalyzeConfig
from plastic_cli.config.model import field as option
from plastic_cli.distribution import installed_version
from plastic_cli.errors import UserError
from plastic_cli.files import write_atomically
from plastic_cli.runs.console import Console
from plastic_cli.runs.record import now
from plastic_cli.verbs.options import DataOptions

if TYPE_CHECKING:
    from plastic_cli.classifier.networks import BuiltNetwork
    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.unstored import UnstoredRun

ANALYSIS_FILE = "analysis.json"
"""The file that says what was analyzed, with the results."""

Build = Callable[["Dataset"], "BuiltNetwork"]
"""Builds a network for the images and classes of a data set."""


class NetworkOptions(DataOptions):
    """Where the analysis of a network of your own reads and writes."""

    output: Path | None = option(
        None,
        "folder for tables, figures and analysis.json; existing files are replaced, and results of other measures of"
        " the same network and images are kept (default: analysis/NAME, with the name of the file of weights)",
        panel="Output",
    )
    quiet: bool = option(False, "print no progress, and only the folder at the end", panel="Output")


@dataclass(frozen=True)
class Source:
    """The network that is analyzed, and those that it is compared with.

    name: of the network. trained, untrained, other: build the networks; other is for CKA. other_name: in tables and
    figures. facts: what the analysis stores about their origin.
    """

    name: str
    trained: Build
    untrained: Build
    other: Build | None = None
    other_name: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def source_of_files(config: NetworkAnalyzeConfig) -> Source:
    """Return the network of `--model` with the weights of `--weights`.

    Raises UserError if one of them or the data set is missing.
    """
    from plastic_cli.classifier.networks import build_network
    from plastic_cli.classifier.weights import load_weights, read_weights
    from plastic_cli.numerics.seeds import torch_generator

    if config.model is None or config.weights is None or config.dataset is None:
        missing = [name for name in ("model", "weights", "dataset") if getattr(config, name) is None]
        raise UserError(
            f"a network of your own needs {' and '.join(f'--{name}' for name in missing)}, as in `plastic analyze"
            " --model my_file:Net --weights net.pt --dataset mnist`. To analyze a run, type its rule: `plastic analyze"
            " RULE`."
        )
    model = config.model

    def untrained(data: Dataset) -> BuiltNetwork:
        return build_network(model, data, config.hidden, torch_generator(config.seed, "weights"))

    def loaded(path: Path, option: str) -> Build:
        # Read now, before the data set, so that a wrong file is an error at once.
        weights = read_weights(path, option)

        def build(data: Dataset) -> BuiltNetwork:
            built = untrained(data)
            load_weights(built.module, weights, f"{option} {path}")
            return built

        return build

    trained = loaded(config.weights, "--weights")
    facts = {"model": model, **_facts("weights", config.weights)}
    if config.other is None:
        return Source(model, trained, untrained, facts=facts)
    other = loaded(config.other, "--other")
    return Source(model, trained, untrained, other, config.other.name, {**facts, **_facts("other", config.other)})


def analyze_source(
    source: Source, config: NetworkAnalyzeConfig, options: NetworkOptions, console: Console, default_folder: Path
) -> UnstoredRun:
    """Take the measures that `config` selects, and write tables, figures and `ANALYSIS_FILE` into the folder.

    The results are those of the returned object. Raises UserError if network, weights and data set do not fit.
    """
    from plastic_cli.classifier.analyze import UNTRAINED, Subject, analyze_network, measures_chosen
    from plastic_cli.classifier.preparation import Preparation, PreparedLearner
    from plastic_cli.data.datasets import load_dataset
    from plastic_cli.numerics.devices import find_device
    from plastic_cli.runs.unstored import UnstoredRun

    device = find_device(config.device)
    data = load_dataset(str(config.dataset), options.data, device=device)
    preparation = Preparation(data, config.mean, config.std, config.image_size)
    described = preparation.described()

    def learner(build: Build) -> PreparedLearner:
        built = build(described)
        return PreparedLearner(built.module.to(device), built.image_shape, preparation)

    def against() -> tuple[PreparedLearner, str]:
        return (
            (learner(source.untrained), UNTRAINED)
            if source.other is None
            else (learner(source.other), source.other_name)
        )

    # Built before the folder is made, so that a network that does not fit leaves nothing.
    trained = learner(source.trained)
    subject = Subject(data, trained, lambda: learner(source.untrained), against, {}, dict, "this network")
    folder = options.output or default_folder
    run = UnstoredRun(
        folder, source.name, seed=config.seed, dataset=data.name, stage="analyze", console=console, device=config.device
    )
    # A network that was trained on pixels in other units gives wrong numbers without any error.
    run.message(f"the network receives {preparation} (--mean, --std)")
    analyze_network(config, run, subject, default=not measures_chosen(config))
    facts = {
        **source.facts,
        "dataset": data.name,
        "dataset_checksum": data.checksum,
        "options": config.model_dump(mode="json"),
        "versions": {"plastic": installed_version()},
        "created": now(),
        "results": {name: value if math.isfinite(value) else None for name, value in run.results.items()},
        "files": run.files,
    }
    before = _stored_analysis(folder)
    if before is not None and _subject(before) == _subject(facts):
        facts = _merged(before, facts)
    elif before is not None:
        run.message(
            f"replaces {folder / ANALYSIS_FILE}, whose results may be of another network, data set, --mean, --std or"
            " --image-size. Older tables and figures stay beside it: choose a new folder with --output"
        )
    write_atomically(folder / ANALYSIS_FILE, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    return run


def _stored_analysis(folder: Path) -> dict[str, Any] | None:
    """Return the facts of the analysis that a folder holds; None if there is none, an empty one if it is damaged."""
    try:
        stored = json.loads((folder / ANALYSIS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    valid = isinstance(stored, dict) and all(
        isinstance(stored.get(name), kind) for name, kind in (("options", dict), ("results", dict), ("files", list))
    )
    return stored if valid else {}


def _subject(facts: Mapping[str, Any]) -> object:
    """Return what two analyses must share so that their results belong together; unique without a checksum."""
    # A module in Python has no file of weights, and can have changed.
    if not facts.get("weights_sha256"):
        return object()
    options = facts["options"]
    return [
        *(facts.get(name) for name in ("model", "weights_sha256", "dataset", "dataset_checksum")),
        *(options.get(name) for name in ("mean", "std", "image_size")),
    ]


def _merged(before: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an analysis with the results that only analyses before it have.

    "earlier" lists those analyses: what was typed, and the names of their results.
    """
    own = set(facts["results"])
    older: list[dict[str, Any]] = before.get("earlier", [])
    inherited = {name for entry in older for name in entry["results"]}
    latest = {name: value for name, value in before.items() if name not in ("earlier", "files")}
    latest["results"] = [name for name in before["results"] if name not in inherited]
    kept = [{**entry, "results": [name for name in entry["results"] if name not in own]} for entry in (*older, latest)]
    return {
        **facts,
        "results": {**before["results"], **facts["results"]},
        "files": list(dict.fromkeys([*before["files"], *facts["files"]])),
        "earlier": [entry for entry in kept if entry["results"]],
    }


def _facts(name: str, path: Path) -> dict[str, str]:
    """Return the path and the SHA-256 of a file."""
    with path.open("rb") as stream:
        return {name: str(path), f"{name}_sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
