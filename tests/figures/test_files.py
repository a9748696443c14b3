"""Figures as files."""

import sys

import imageio.v3 as imageio
import matplotlib
import matplotlib.backends.backend_agg
import pandas as pd
import pytest
from plotnine import aes, geom_point, ggplot

from plastic_cli.figures.files import headless, save_figure


@pytest.fixture
def backend():
    """Restore the backend after a test."""
    before = matplotlib.get_backend()
    yield
    matplotlib.use(before)


@pytest.mark.parametrize("name", ["agg", "svg", "module://fake_inline"])
def test_a_backend_that_opens_no_window_is_kept(name, tmp_path, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, "fake_inline", matplotlib.backends.backend_agg)
    matplotlib.use(name)
    monkeypatch.setattr(matplotlib, "use", lambda *_, **__: pytest.fail("the backend was replaced"))
    (path, _) = save_figure(ggplot(pd.DataFrame({"x": [1, 2]}), aes("x", "x")) + geom_point(), tmp_path, "points")
    assert imageio.imread(path).ndim == 3
    assert matplotlib.get_backend() == name
    monkeypatch.undo()


def test_a_backend_with_windows_is_replaced_while_a_figure_is_drawn(monkeypatch, backend):
    monkeypatch.setitem(sys.modules, "with_windows", matplotlib.backends.backend_agg)
    matplotlib.use("module://with_windows")
    used = []
    with headless():
        used.append(matplotlib.get_backend().lower())
    assert used == ["agg"]
    assert matplotlib.get_backend() == "module://with_windows"
