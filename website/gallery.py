"""The gallery: `python website/gallery.py` makes its runs, and writes `docs/gallery.md` and `docs/images/gallery/`.

All runs are on data that is installed with plastic. They take about four minutes on two cores.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/images/gallery"
LARGEST = 3_000_000
"""Bytes of all pictures together."""

HEAD = """\
# Gallery

Figures and films from real runs. Each part shows the commands that made it. The data is installed with plastic
(scikit-learn's digits and Gymnasium's environments), so you can repeat everything here. This takes a few minutes.
`python website/gallery.py` in the repository writes this page.

`plastic analyze` writes figures as PNG and SVG, and `plastic render` writes films as GIF, MP4 or WebM, into the folder
of the run.
"""


@dataclass(frozen=True)
class Picture:
    """A figure or film: its file in the folder of the run, and what it shows. text: also what a screen reader says."""

    file: str
    text: str


@dataclass(frozen=True)
class Part:
    """One run: its commands, the first of which trains it, and the pictures that are shown."""

    title: str
    commands: tuple[str, ...]
    pictures: tuple[Picture, ...]


PARTS = (
    Part(
        "grlu: learning from a global reward",
        (
            "plastic train grlu --perturbations 64 --credit preactivation",
            "plastic render grlu",
            "plastic analyze grlu --angles --confusion",
        ),
        (
            Picture("videos/weights.gif", "Input weights of hidden units and the accuracy during training."),
            Picture(
                "figures/angles.png",
                "Angle between one update of the rule and the gradient, by layer and number of perturbations.",
            ),
            Picture(
                "figures/confusion.png", "Confusion matrix: the digits that the network predicts for each true digit."
            ),
        ),
    ),
    Part(
        "eglp: learning from surprising images",
        ("plastic train eglp", "plastic render eglp", "plastic analyze eglp --events"),
        (
            Picture("videos/learning.gif", "Receptive fields, their changes, the events and the accuracy."),
            Picture("figures/events.png", "The batches from which the hidden layers learned."),
        ),
    ),
    Part(
        "metafa: learning a plasticity rule",
        ("plastic train metafa --episodes 200", "plastic render metafa", "plastic analyze metafa --theta --accuracy"),
        (
            Picture("videos/learning.gif", "Strength of each term of the rule, accuracy and angles over the episodes."),
            Picture("figures/theta.png", "Strength of each term over the episodes of meta-learning."),
            Picture("figures/accuracy.png", "Accuracy and loss of the networks after each episode, and the controls."),
        ),
    ),
    Part(
        "mpn: an agent whose memory is in its synapses",
        (
            "plastic train mpn --algorithm a2c --total-steps 150000",
            "plastic render mpn --frames 60",
            "plastic analyze mpn --m-matrix --ablate --decode",
        ),
        (
            Picture(
                "videos/episode_0.gif", "An episode of GoNogo: the task, the modulations M, inputs, actions and return."
            ),
            Picture(
                "figures/m_matrix.png",
                "M at six steps of an episode; the units are sorted to make the structure visible.",
            ),
            Picture("figures/ablations.png", "Return with M intact, set to zero, frozen and shuffled."),
            Picture("figures/decoding_past.png", "How well past inputs can be read from the activity h and from M."),
        ),
    ),
    Part(
        "selective: five tasks in sequence",
        (
            "plastic train selective --tasks 5 --scenario task",
            "plastic render selective",
            "plastic analyze selective --forgetting --gates",
        ),
        (
            Picture(
                "videos/plasticity_layer_1.gif",
                "Eligibility and gates of the first layer, and the accuracy on each task.",
            ),
            Picture("figures/accuracy_matrix.png", "Accuracy on each task after training on each task."),
            Picture("figures/gate_history.png", "Gates of each layer during training; the line is the mean."),
        ),
    ),
)


def page() -> str:
    """Return the text of the page."""
    lines = [HEAD]
    for part in PARTS:
        lines += [f"## {part.title}", "", "```bash", *part.commands, "```", ""]
        for picture in part.pictures:
            lines += [f"![{picture.text}](images/gallery/{_name(part, picture)})", "", f"*{picture.text}*", ""]
    return "\n".join(lines)


def _name(part: Part, picture: Picture) -> str:
    return f"{part.title.partition(':')[0]}-{Path(picture.file).name}"


def make_pictures() -> None:
    """Carry out all commands and copy the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for command in part.commands:
                sys.stderr.write(f"{command}\n")
                environment = {**os.environ, "PLASTIC_RUNS": f"{folder}/runs"}
                subprocess.run([*shlex.split(command), "--quiet"], env=environment, check=True, stdout=subprocess.PIPE)
            [run] = (path for path in Path(folder, "runs").iterdir() if not path.name.startswith("."))
            for picture in part.pictures:
                shutil.copy(run / picture.file, PICTURES / _name(part, picture))


def main() -> None:
    """Make all pictures and write the page."""
    make_pictures()
    (ROOT / "docs/gallery.md").write_text(page(), encoding="utf-8")
    size = sum(path.stat().st_size for path in PICTURES.iterdir())
    sys.stderr.write(f"{size} bytes of pictures, at most {LARGEST}\n")


if __name__ == "__main__":
    main()
