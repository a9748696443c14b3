"""No number that we measured is typed by hand into the running text of a page."""

from __future__ import annotations

import re

import pytest

import typed_numbers
from docs.pages import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_measured_number_is_typed(page):
    """Take the number from docs/measurements, point at a table, or say in website/typed_numbers.toml what it is."""
    in_docs = page in typed_numbers.measurements.PAGES
    assert [str(found) for found in typed_numbers.typed_numbers(page)] == [] or not in_docs


def test_every_phrase_is_in_its_page_and_has_a_number():
    for kind, pages in typed_numbers.given().items():
        for page, phrases in pages.items():
            for phrase in phrases if kind != "pages" else []:
                assert re.search(r"\d", phrase), phrase
                text = (ROOT / page).read_text(encoding="utf-8")
                assert re.search(typed_numbers.pattern_of(phrase), text), f"{page} does not have: {phrase}"


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("The accuracy is 97.6.", ["97.6"]),
        ("It reaches 93% and .35, or 2 points more.", ["93", ".35", "2"]),
        ("It begins after 2,300 images [1,960, 2,640].", ["[1,960, 2,640]"]),
        ("The angle is 75° and the return -1.5.", ["75", "-1.5"]),
        ("It takes 1.4 times as long as 12 episodes.", ["1.4"]),
        ("With k = .5, a learning rate of 0.01 and 60,000 images.", []),
        ("Python 3.11, plastic 0.2.0, Fig. 3.2, 2026-11-28, arXiv:1609.01596.", []),
        ("With `--k .5` it is [here](a-97.6.md), at <https://a.org/97.6>.", []),
        ("It is <!-- number: a/b/c:1 -->97.6<!-- end -->%, with a 95% interval.", []),
        ("For 28 x 28 pixels and 784-256-10.", []),
    ],
)
def test_what_looks_measured(sentence, numbers, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        f"# Title\n\n{sentence}\n\n```\n97.6\n```\n\n    97.6\n\n<!-- measured: a/b -->\n97.6\n<!-- end -->\n"
    )
    monkeypatch.setattr(typed_numbers, "ROOT", tmp_path)
    assert [found.number for found in typed_numbers.typed_numbers(page)] == numbers
