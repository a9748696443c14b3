"""theta.toml: written, read, edited by hand, and wrong in every way."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plastic_cli import UserError
from plastic_metafa import rule
from plastic_metafa.theta_file import FEEDBACKS, read_theta, term_key, theta_toml

STRENGTHS = st.floats(allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.integers(0, 9), STRENGTHS, min_size=1), st.sampled_from(FEEDBACKS))
def test_a_written_file_is_read_back(tmp_path, theta, feedback):
    path = tmp_path / "theta.toml"
    path.write_text(theta_toml(theta, feedback, "learned somewhere"), encoding="utf-8")
    learned = read_theta(path)
    assert list(learned.theta.items()) == list(theta.items())
    assert learned.feedback == feedback
    assert learned.name == str(path)


def test_the_file_is_readable():
    text = theta_toml({0: 0.01, 2: -0.07, 9: 0.005}, "fixed", "learned by run 17")
    assert text.startswith("# learned by run 17\n")
    assert tomllib.loads(text) == {
        "feedback": "fixed",
        "theta": {"pseudo-gradient": 0.01, "ehebb": -0.07, "oja": 0.005},
    }
    # The line above each strength is the equation that it multiplies.
    lines = text.splitlines()
    for number in (0, 2, 9):
        (place,) = (place for place, line in enumerate(lines) if line.startswith(f"{rule.TERMS[number].name} ="))
        assert lines[place - 1].startswith(f"# F{number} (")


def test_a_term_without_a_docstring_can_be_written(monkeypatch, tmp_path):
    hebb = rule.Term("hebb", lambda W, y_pre, y_post, e_pre, e_post: rule.outer(y_post, y_pre))
    monkeypatch.setitem(rule.TERMS, 10, hebb)
    path = tmp_path / "theta.toml"
    path.write_text(theta_toml({0: 0.5, 10: 0.25}, "sign", "x"), encoding="utf-8")
    assert read_theta(path).theta == {0: 0.5, 10: 0.25}


@pytest.mark.parametrize(
    ("text", "theta", "feedback"),
    [
        ("[theta]\n0 = 0.01\n9 = 1\n", {0: 0.01, 9: 1.0}, "fixed"),
        ("[theta]\noja = 1e-3 # by hand\nEHEBB = -0\n", {9: 1e-3, 2: 0.0}, "fixed"),
        ("feedback = 'direct'\ntheta = {decay = 0.5}", {3: 0.5}, "direct"),
        ("theta.scaled-gradient = -2\r\n", {5: -2.0}, "fixed"),
    ],
)
def test_valid_edited_files(text, theta, feedback, tmp_path):
    path = tmp_path / "by hand.toml"
    path.write_text(text, encoding="utf-8")
    learned = read_theta(path)
    assert (learned.theta, learned.feedback) == (theta, feedback)
    assert all(isinstance(value, float) for value in learned.theta.values())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "it has no table [theta]"),
        ("feedback = 'fixed'", "it has no table [theta]"),
        ("[theta]", "it has no table [theta]"),
        ("theta = 3", "it has no table [theta]"),
        ("[[theta]]\noja = 1", "it has no table [theta]"),
        ("theta = [0.1, 0.2]", "it has no table [theta]"),
        ("[theta]\noia = 1", "there is no term 'oia'. Did you mean 'oja'?"),
        ("[theta]\n10 = 1", "there is no term '10'."),
        ("[theta]\n-1 = 1", "there is no term '-1'."),
        ("[theta]\noja = '1'", "oja is '1': it must be a finite number"),
        ("[theta]\noja = true", "oja is True: it must be a finite number"),
        ("[theta]\noja = nan", "oja is nan: it must be a finite number"),
        ("[theta]\noja = -inf", "oja is -inf: it must be a finite number"),
        ("[theta]\noja = [1]", "oja is [1]: it must be a finite number"),
        ("[theta]\noja = 1979-05-27", "it must be a finite number"),
        ("[theta]\noja = 1" + 400 * "0", "it must be a finite number"),
        ("[theta]\noja = 1" + 5000 * "0", "cannot read"),
        ("[theta.oja]\nx = 1", "it must be a finite number"),
        ("[theta]\noja = 1\n9 = 2", "term 9 occurs twice"),
        ("[theta]\noja = 1\nOja = 1", "term 9 occurs twice"),
        ("[theta]\noja = 1\noja = 2", "cannot read"),
        ("feedback = 'fix'\n[theta]\noja = 1", "feedback is 'fix': it must be one of fixed, symmetric, direct, sign"),
        ("feedback = ['fixed']\n[theta]\noja = 1", "it must be one of fixed, symmetric, direct, sign"),
        ("feedback = 1\n[theta]\noja = 1", "feedback is 1: it must be one of"),
        ("rate = 1\n[theta]\noja = 1", "unknown key 'rate'. The keys are feedback and the table [theta]"),
        ("[theta\noja = 1", "cannot read"),
        (b"\xff\xfe[theta]", "cannot read"),
        (b"\x00", "cannot read"),
    ],
)
def test_wrong_content_is_a_one_line_error_that_names_the_file(content, complaint, tmp_path):
    path = tmp_path / "theta.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_theta(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line_errors(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.toml\. A finished run of metafa has one"):
        read_theta(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match="cannot read"):
        read_theta(tmp_path)


@pytest.mark.parametrize(("word", "number"), [("oja", 9), (" Oja ", 9), ("9", 9), (9, 9), (0, 0), ("decay", 3)])
def test_a_term_is_found_by_name_and_index(word, number):
    assert term_key(word) == number


@pytest.mark.parametrize("word", ["10", -1, "", "pseudo", "1.0", "²", "hebb\nrule"])
def test_the_error_for_an_unknown_term_lists_all_terms(word):
    with pytest.raises(UserError, match="there is no term") as caught:
        term_key(word)
    assert all(term.name in str(caught.value) for term in rule.TERMS.values())
