"""No text makes a terminal do anything, and no cell makes a spreadsheet compute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.escapes import csv_cell, printable, printable_line, valid_text

DANGEROUS = ["\x1b[2J", "\x07", "\x9b31m", "\x7f", "a\rb", "\u202egnp.exe", "\u2066x", "\ud800", "caf\udce9", "\x00"]


@pytest.mark.parametrize("text", DANGEROUS)
def test_what_a_terminal_obeys_is_shown_by_its_code(text):
    shown = printable_line(f"before {text} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert not set(shown) & set("\x1b\x07\x9b\x7f\r\u202e\u2066\ud800\udce9\x00")
    shown.encode()


@given(st.text())
def test_any_text_becomes_one_line_that_can_be_printed(text):
    shown = printable_line(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert printable_line(shown) == shown
    assert printable(shown) == shown


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_letters_and_signs_of_any_script_stay(text):
    assert printable(text) == valid_text(text) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-inf", "+", "-1,2"]
)
def test_what_a_spreadsheet_would_compute_is_text(text):
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("value", ["-1", "+1.5", "-1e-5", "-.5", "abc", "", "1=1", -1, 0.5, None, True, [1]])
def test_numbers_and_harmless_texts_stay_as_they_are(value):
    assert csv_cell(value) == value
