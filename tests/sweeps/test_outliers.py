"""How often a run of the reference lies outside the interval of its other seeds."""

import numpy as np
import pytest
from scipy import stats

from plastic_cli.verbs.outliers import outliers, outliers_by_rule
from reports.references import record_of, reference_of

VALUES = np.array([0.90, 0.91, 0.92, 0.93, 0.20])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Five seeds of grlu, of which one is an outlier, and three of backprop, which are too few to judge one of them."""
    runs = [record_of("grlu", seed, {"test/accuracy": value}, number=seed) for seed, value in enumerate(VALUES)]
    runs += [record_of("backprop", seed, {"test/accuracy": 0.9}, number=10 + seed) for seed in range(3)]
    return reference_of(tmp_path_factory.mktemp("reference"), runs)


@pytest.mark.parametrize("numbers", [1, 20])
def test_each_value_is_judged_by_the_others(reference, numbers):
    expected = 0
    for place, value in enumerate(VALUES):
        others = np.delete(VALUES, place)
        half = stats.t.ppf(1 - 0.025 / numbers, 3) * others.std(ddof=1) * np.sqrt(1 + 1 / 4)
        expected += abs(value - others.mean()) > half
    found = outliers_by_rule(reference, numbers)
    assert list(found) == ["grlu"], "two other seeds give no interval"
    assert (found["grlu"].values, found["grlu"].outside) == (5, expected) == (5, 1)
    assert outliers(reference, numbers) == found["grlu"]
    assert found["grlu"].share == 0.2
