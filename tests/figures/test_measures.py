import subprocess
import sys
import warnings
from pathlib import Path

import imageio.v3 as imageio
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from plastic_cli.analysis.probe import LayerProbe
from plastic_cli.analysis.robustness import RobustnessRow
from plastic_cli.errors import PlasticError
from plastic_cli.figures.files import save_figure
from plastic_cli.figures.measures import (
    angle_figure,
    cka_figure,
    class_accuracy_figure,
    confusion_matrix_figure,
    image_grid,
    layer_angles_figure,
    probe_figure,
    robustness_figure,
)

GENERATOR = np.random.default_rng(0)


def confusion(classes):
    return np.eye(classes, dtype=int) * 90 + GENERATOR.integers(0, 3, (classes, classes))


ROBUSTNESS = pd.DataFrame(
    [
        RobustnessRow("clean", 0.0, 0.95, 0.2, 100),
        RobustnessRow("gaussian-noise", 0.3, 0.9, 0.3, 100),
        RobustnessRow("rotation", 30.0, 0.8, 0.5, 100),
    ]
)
PROBES = pd.DataFrame(
    [
        LayerProbe(
            accuracy=0.9, l2=0.1, examples=9, validation_accuracy=0.9, converged=True, layer=0, network="trained"
        ),
        LayerProbe(
            accuracy=0.8, l2=0.1, examples=9, validation_accuracy=0.8, converged=True, layer=0, network="untrained"
        ),
    ]
)
WITH_PIXELS = pd.concat([PROBES.assign(layer=1), PROBES.iloc[:1].assign(layer=0, network="pixels", accuracy=0.7)])
ANGLES = pd.DataFrame(
    {"layer": ["hidden", "output"] * 2, "label": ["1", "1", "16", "16"], "angle": [85, 70, 50, np.nan]}
)
RESNET = [
    "conv1",
    *(f"layer{group}.{block}.conv{number}" for group in (1, 2, 3, 4) for block in (0, 1) for number in (1, 2)),
    "fc",
]
LAYER_ANGLES = pd.DataFrame(
    [
        {"name": name, "network": network, "angle": 80 - 2 * number, "angle_sd": 3.0 if number % 2 else np.nan}
        for number, name in enumerate(RESNET)
        for network in ("trained", "untrained")
    ]
)
NAMED_PROBES = pd.concat([PROBES.assign(layer=number, name=name) for number, name in enumerate(RESNET, start=1)])

FIGURES = {
    "confusion": lambda: confusion_matrix_figure(confusion(10), list("0123456789")),
    "confusion of 47": lambda: confusion_matrix_figure(confusion(47), [f"{index}" for index in range(47)]),
    "confusion without examples": lambda: confusion_matrix_figure(np.zeros((2, 2), int), ["a", "b"]),
    "classes": lambda: class_accuracy_figure([0.9, 0.5, np.nan], ["a", "b", "c"]),
    "robustness": lambda: robustness_figure(ROBUSTNESS),
    "robustness of two": lambda: robustness_figure(
        pd.concat([ROBUSTNESS.assign(label=name) for name in ("ours", "backprop")])
    ),
    "cka": lambda: cka_figure(
        [[1, 0.5], [-0.01, np.nan]], ["input", "hidden"], ["input", "a longer name"], debiased=True
    ),
    "cka of one layer": lambda: cka_figure([[0.4]], ["1"], ["1"], rows="Layer 1", columns="Layer 1 of a run"),
    "probe": lambda: probe_figure(PROBES),
    "probe and pixels": lambda: probe_figure(WITH_PIXELS),
    "probe of many layers with names": lambda: probe_figure(
        pd.concat([NAMED_PROBES, WITH_PIXELS[WITH_PIXELS["network"] == "pixels"]])
    ),
    "cka of many layers with names": lambda: cka_figure(np.eye(len(RESNET)), RESNET, RESNET),
    "angles of many layers with names": lambda: layer_angles_figure(LAYER_ANGLES),
    "angles of a layer": lambda: layer_angles_figure(LAYER_ANGLES.iloc[:1]),
    "angles that are not defined": lambda: layer_angles_figure(LAYER_ANGLES.iloc[:4].assign(angle=np.nan)),
    "angles": lambda: angle_figure(ANGLES),
    "angles of one": lambda: angle_figure(ANGLES[["layer", "angle"]].iloc[:2].assign(low=40, high=95)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_without_a_warning(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (path,) = save_figure(FIGURES[name](), tmp_path, "figure", ("png",))
    image = imageio.imread(path)[..., :3]
    assert image.min() < 100
    # Nothing touches the edge of the page, which would mean that something is cut off.
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() > 250
    assert pyplot.get_fignums() == []


def test_corruption_kinds_become_facets_that_start_at_the_clean_accuracy():
    data = robustness_figure(ROBUSTNESS).data
    assert data["facet"].nunique() == 2
    for _, facet in data.groupby("facet", observed=True):
        assert facet.loc[facet["strength"] == 0, "accuracy"].tolist() == [95]
    with pytest.raises(ValueError, match="at least one"):
        robustness_figure(ROBUSTNESS.iloc[:1])


def test_the_probe_of_one_layer_begins_at_the_pixels():
    data = probe_figure(WITH_PIXELS).data
    for _, line in data.groupby("network", observed=True):
        assert line.sort_values("x")["place"].tolist() == ["pixels", "layer 1"]
        assert line.loc[line["place"] == "pixels", "accuracy"].tolist() == [70]


def test_angles_stand_in_the_order_of_the_layers_with_a_line_for_each_network():
    data = layer_angles_figure(LAYER_ANGLES).data
    assert data["network"].cat.categories.tolist() == ["trained", "untrained"]
    for _, line in data.groupby("network", observed=True):
        assert line.sort_values("x")["name"].tolist() == RESNET
        assert np.diff(line["x"]) == pytest.approx(1)
        ranges = line.dropna(subset=["low"])
        assert (ranges["high"] - ranges["low"]).tolist() == [6.0] * (len(RESNET) // 2)


def test_the_similarity_of_one_layer_is_a_place_between_0_and_1():
    figure = cka_figure([[0.4]], ["1"], ["1"], rows="Layer 1 of this run", columns="Layer 1 of that run", debiased=True)
    assert figure.labels.subtitle == "linear CKA, debiased, of layer 1 of this run and layer 1 of\nthat run"
    assert figure.data["cka"].tolist() == [0.4]
    (scale,) = [scale for scale in figure.scales if "x" in scale.aesthetics]
    assert (scale.breaks[0], scale.breaks[-1]) == (0, 1)


def test_labels_keep_their_order_and_the_table_does_not_change():
    table = ANGLES.assign(label=["16", "16", "2", "2"])
    before = table.copy()
    assert list(angle_figure(table).data["label"].cat.categories) == ["16", "2"]
    pd.testing.assert_frame_equal(table, before)


def test_image_grid_places_each_unit_between_separators():
    weights = np.array([[1.0, -1.0, 0.0, 0.5], [-1.0, -1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    grid = image_grid(weights, (2, 2), columns=2, limit=1.0)
    assert grid.shape == (7, 7, 3)
    assert grid.dtype == np.uint8
    vermilion, blue, white, gray = (110, 48, 0), (0, 63, 99), (252, 252, 252), (64, 64, 64)
    assert tuple(grid[1, 1]) == vermilion
    assert tuple(grid[1, 2]) == blue
    assert tuple(grid[2, 1]) == white
    assert tuple(grid[1, 4]) == tuple(grid[2, 5]) == blue
    assert tuple(grid[4, 1]) == tuple(grid[5, 2]) == white
    # Separators, and the place of a fourth unit.
    for pixels in (grid[::3], grid[:, ::3], grid[4:, 4:]):
        assert (pixels == gray).all()


def test_image_grid_of_color_weights_and_zoom():
    weights = np.zeros((1, 12))
    weights[0, 0] = 2.0
    weights[0, 4] = -2.0
    grid = image_grid(weights, (3, 2, 2), limit=2.0, gap=0, zoom=3)
    assert grid.shape == (6, 6, 3)
    assert (grid[:3, :3] == (255, 0, 128)).all()
    assert (grid[3:, 3:] == 128).all()


def test_image_grid_scale_is_symmetric_and_clips():
    weights = GENERATOR.normal(size=(4, 9))
    np.testing.assert_array_equal(image_grid(weights, (3, 3)), image_grid(5 * weights, (1, 3, 3)))
    np.testing.assert_array_equal(
        image_grid(np.full((1, 1), 9.0), (1, 1), limit=1), image_grid(np.full((1, 1), 1.0), (1, 1), limit=1)
    )
    assert (image_grid(np.zeros((1, 4)), (2, 2), gap=0) == 252).all()
    with pytest.raises(ValueError, match="not images"):
        image_grid(weights, (2, 4))


def test_files_are_replaced_and_leave_no_temporary_file(tmp_path):
    folder = tmp_path / "runs" / "figures"
    first = save_figure(FIGURES["probe"](), folder, "probe")
    before = [path.read_bytes() for path in first]
    again = save_figure(FIGURES["probe"](), folder, "probe")
    assert first == again == [folder / "probe.png", folder / "probe.svg"]
    assert [path.read_bytes() for path in again] == before
    assert sorted(path.name for path in folder.iterdir()) == ["probe.png", "probe.svg"]
    assert before[0].startswith(b"\x89PNG") and b"</svg>" in before[1]


def test_a_failure_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    (path,) = save_figure(FIGURES["probe"](), tmp_path, "probe", ("png",))
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PlasticError, match="No space left"):
        save_figure(FIGURES["angles"](), tmp_path, "probe", ("png",))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlasticError, match="Cannot write the figure"):
        save_figure(FIGURES["probe"](), tmp_path / "file" / "figures", "probe")
    with pytest.raises(ValueError, match="name of a file"):
        save_figure(FIGURES["probe"](), tmp_path, "../probe")


def test_the_chosen_backend_is_restored(tmp_path):
    chosen = matplotlib.get_backend()
    matplotlib.use("svg")
    try:
        save_figure(FIGURES["probe"](), tmp_path, "probe", ("png",))
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use(chosen)


def test_draws_without_a_display_for_any_setting_of_the_environment(tmp_path):
    code = (
        "import sys, pandas as pd\nfrom pathlib import Path\n"
        "from plastic_cli.figures.measures import angle_figure\n"
        "from plastic_cli.figures.files import save_figure\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "save_figure(angle_figure(pd.DataFrame({'layer': ['a'], 'angle': [3.0]})), Path(sys.argv[1]), 'angle')\n"
    )
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "MPLBACKEND": "TkAgg"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=120)
    assert (tmp_path / "angle.svg").exists()
