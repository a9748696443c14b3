"""Modules of the user's own that an option names as MODULE:NAME."""

from __future__ import annotations

import hashlib
import sys

import pytest

from plastic_cli.errors import UserError
from plastic_cli.runs.folder import create_run
from plastic_cli.runs.own_modules import check_module_name, import_own, module_version, note_versions


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory that is not on the path, with a module and a package of modules."""
    (tmp_path / "mine_alone.py").write_text("value = 3\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "inner.py").write_text("from mine.other import value\n")
    (tmp_path / "mine" / "other.py").write_text("value = 4\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] in ("mine", "mine_alone")]:
        del sys.modules[module]


@pytest.mark.parametrize(("reference", "value"), [("mine_alone:value", 3), ("mine.inner:value", 4)])
def test_a_module_of_the_working_directory_is_found_and_the_path_stays_as_it_was(reference, value, here):
    before = list(sys.path)
    assert import_own(reference, "--option") == value
    assert sys.path == before


def test_a_file_of_the_working_directory_hides_no_library(here, monkeypatch):
    (here / "colorsys.py").write_text("rgb_to_hsv = None\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert callable(import_own("colorsys:rgb_to_hsv", "--option"))


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("nowhere:value", "--option: there is no module nowhere to import. Start plastic in the folder that contains"),
        ("nowhere.inner:value", "--option: there is no module nowhere.inner to import."),
        ("mine.iner:value", "--option: mine has no module 'iner'. Did you mean 'inner'?"),
        ("mine.qqq.deeper:value", "--option: mine has no module 'qqq'. Name one that it has."),
        ("mine_alone.inner:value", "--option: mine_alone has no module 'inner'. Name one that it has."),
        ("mine_alone:valeu", "has no valeu. Did you mean 'value'"),
        ("mine_alone.py:value", "In the folder of the file, write mine_alone:value, without a path and without .py"),
        ("a/b-c:value", "write MODULE:value"),
        (
            "__main__:a_function_of_a_notebook",
            "was defined in a notebook or a script",
        ),
    ],
)
def test_what_cannot_be_imported_is_an_error_of_one_line(reference, complaint, here):
    with pytest.raises(UserError) as raised:
        import_own(reference, "--option")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_name_of_a_module_is_checked_without_importing_it():
    check_module_name("not.there:value", "--option")
    with pytest.raises(UserError, match="an empty text is not the name of a module"):
        check_module_name(":value", "--option")


def test_the_version_of_a_module_is_that_of_its_package_or_a_checksum(here):
    import_own("mine_alone:value", "--option")
    digest = hashlib.sha256((here / "mine_alone.py").read_bytes()).hexdigest()[:12]
    assert module_version("mine_alone") == {"mine_alone": f"sha256 {digest}"}
    assert module_version("plotnine.themes").keys() == {"plotnine"}
    assert module_version("never_imported") == {"never_imported": "unknown"}


def test_a_run_says_if_a_module_has_changed_since_it_began(tmp_path):
    run = create_run(tmp_path / "runs", rule="grlu", config={})
    said = []
    run.message = said.append
    note_versions(run, {"mine": "sha256 1"})
    assert not said
    note_versions(run, {"mine": "sha256 2", "other": "1.0"})
    assert said == [f"run {run.id} began with mine sha256 1 and continues with sha256 2"]
    assert run.record.versions == {"mine": "sha256 2", "other": "1.0"}
