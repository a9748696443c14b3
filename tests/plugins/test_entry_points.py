"""Entry points are the ones that importlib.metadata finds."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import entry_points

from plastic_cli.plugins import entry_points as own


def as_importlib_finds_them():
    found = [(entry.name, entry.value, entry.dist.name) for entry in entry_points(group="plastic")]
    return sorted(found)


def as_we_find_them():
    return sorted((entry.name, entry.value, entry.origin().rpartition(" ")[0]) for entry in own.installed())


def distribution(folder, name="Plastic-Extra", version="2.0", text="[plastic]\nextra = plastic_extra\n"):
    about = folder / f"{name.lower().replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(text)
    return folder


def named(found, name):
    return [entry for entry in found if entry[0] == name]


def test_the_installed_ones_are_found():
    ours = {(name, value) for name, value, _ in as_we_find_them()}
    assert ours == {(name, value) for name, value, _ in as_importlib_finds_them()}
    assert ("grlu", "plastic_grlu") in ours


def test_the_first_of_two_distributions_of_one_name_counts(tmp_path, monkeypatch):
    first = distribution(tmp_path / "first", version="2.0")
    second = distribution(tmp_path / "second", name="plastic_extra", version="1.0")
    monkeypatch.setattr(sys, "path", [str(first), str(second), *sys.path])
    assert named(as_we_find_them(), "extra") == named(as_importlib_finds_them(), "extra")
    assert [entry.origin() for entry in own.installed() if entry.name == "extra"] == ["Plastic-Extra 2.0"]


def test_other_groups_and_comments_are_skipped(tmp_path, monkeypatch):
    text = "[console_scripts]\nother = a:b\n\n[plastic]\n# a comment\n one = plastic_one \nexport-two=two:x.y [extra]\n"
    monkeypatch.setattr(sys, "path", [str(distribution(tmp_path / "site", text=text))])
    assert [entry.name for entry in own.installed()] == ["export-two", "one"]
    assert [entry.name for entry in own.installed()] == sorted(entry.name for entry in entry_points(group="plastic"))


def test_a_distribution_in_a_zip_file_is_found(tmp_path, monkeypatch):
    folder = distribution(tmp_path / "site")
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert [(entry.name, entry.origin()) for entry in own.installed()] == [("extra", "Plastic-Extra 2.0")]


def test_an_attribute_of_a_module_is_loaded():
    entry = own.Entry("x", "collections.abc:Mapping.get [extra]", None)
    from collections.abc import Mapping

    assert entry.load() is Mapping.get
