import pytest

from reports.report_frames import CLAIMS, grlu_experiments


@pytest.fixture
def experiments():
    """Runs and their metrics: five settings of two rules, five seeds each."""
    return grlu_experiments()


@pytest.fixture
def claims_text():
    return CLAIMS
