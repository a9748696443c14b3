"""Plugins that others publish: one that works, one that does not load, and two that want the same name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes import environment, run_plastic

OJA = Path(__file__).parent / "oja"


@pytest.fixture(scope="module")
def oja(tmp_path_factory):
    """The folder into which pip has installed the sample plugin, without a network."""
    base = tmp_path_factory.mktemp("oja")
    source = shutil.copytree(OJA, base / "source")
    installed = base / "site-packages"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    done = subprocess.run(
        [*pip, *alone, "--target", str(installed), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return installed


def write_plugin(folder, name, source, *, entry=None, version="1.0"):
    """Write a distribution as an installer leaves it: a module and the metadata that names it."""
    module = f"plastic_{name}"
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plastic-{name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[plastic]\n{entry or name} = {module}\n")
    return folder


def rule_source(name, commands="plastic_backprop.commands"):
    return (
        "from plastic_cli import Rule, hookimpl\n\n@hookimpl\ndef plastic_rule():\n"
        f"    return Rule(name={name!r}, summary='A rule.', citation='nobody', commands={commands!r})\n"
    )


def test_an_installed_plugin_is_listed_with_where_it_comes_from(oja):
    done = run_plastic("rules", "--json", folders=[oja])
    rows = {row["rule"]: row for row in json.loads(done.stdout)}
    assert rows["oja"]["from"] == "plastic-oja 0.3"
    assert {"oja", "grlu", "backprop"} <= rows.keys()
    assert done.stderr == ""


def test_an_installed_plugin_trains_and_its_version_is_stored(oja, tmp_path):
    done = run_plastic("train", "oja", "--json", "--epochs", 20, "--inputs", 3, folders=[oja])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # The variance along the first input is nine times that along the others, and the unit finds it.
    assert result["metrics"]["train/variance"] > 6
    record = json.loads((tmp_path / result["folder"] / "run.json").read_text())
    assert record["versions"]["rule"] == "plastic-oja 0.3"
    assert (record["dataset"], record["config"]["inputs"]) == (None, 3)


def test_an_installed_plugin_keeps_the_contract(oja, tmp_path):
    program = (
        "import sys, pathlib, plastic_cli.testing as t\nt.check_rule('oja', pathlib.Path(sys.argv[1]), {'epochs': 3})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "checked")],
        env=environment(oja),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_does_not_load_is_reported_and_the_rest_works(tmp_path):
    broken = write_plugin(tmp_path / "site", "broken", "import a_library_that_nobody_has\n")
    reason = "No module named 'a_library_that_nobody_has'"

    helped = run_plastic("train", "--help", folders=[broken])
    assert helped.returncode == 0
    assert "grlu" in helped.stdout
    assert helped.stderr.count(reason) == 1, "once, however often the rules are asked for"
    assert "'broken' (plastic-broken 1.0)" in helped.stderr

    trained = run_plastic("train", "grlu", "--dry-run", folders=[broken])
    assert trained.returncode == 0
    assert "plastic-broken 1.0" in trained.stderr

    asked_for = run_plastic("train", "broken", folders=[broken])
    assert asked_for.returncode == 2
    assert (
        f"error: the plugin 'broken' (plastic-broken 1.0) does not load: ModuleNotFoundError: {reason}"
        in asked_for.stderr
    )

    assert run_plastic("--help", folders=[broken]).stderr == "", "naming the verbs loads no plugin"


def test_doctor_shows_a_plugin_that_does_not_load(tmp_path):
    broken = write_plugin(tmp_path / "site", "broken", "1 / 0\n")
    done = run_plastic("doctor", "--json", folders=[broken])
    assert done.returncode == 1
    states = {check["check"]: check for check in json.loads(done.stdout)}
    assert states["plugin broken"]["state"] == "broken"
    assert "ZeroDivisionError" in states["plugin broken"]["detail"]
    assert states["rule grlu"]["state"] == "ok"


def test_doctor_finds_a_rule_whose_commands_do_not_load(tmp_path):
    site = write_plugin(tmp_path / "site", "hollow", rule_source("hollow", "plastic_hollow.absent"))
    done = run_plastic("doctor", "--json", folders=[site])
    assert done.returncode == 1
    assert {check["check"]: check["state"] for check in json.loads(done.stdout)}["rule hollow"] == "broken"
    asked_for = run_plastic("train", "hollow", folders=[site])
    assert asked_for.returncode == 2
    assert len(asked_for.stderr.splitlines()) == 1
    assert "does not load" in asked_for.stderr


def test_two_plugins_with_the_same_name(tmp_path):
    site = write_plugin(tmp_path / "site", "another", rule_source("backprop"), entry="zz")
    done = run_plastic("rules", "--json", folders=[site])
    assert done.returncode == 0
    names = [row["rule"] for row in json.loads(done.stdout)]
    assert names.count("backprop") == 1
    assert "'zz' (plastic-another 1.0)" in done.stderr
    assert "the name 'backprop' is already taken by plastic " in done.stderr


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("nothing = 1\n", "it implements no plastic_rule() hook"),
        (rule_source("x").replace("return Rule", "return str"), "TypeError"),
        (rule_source("x").split("return")[0] + "return 'grlu'\n", "plastic_rule() returned a str, not a Rule"),
    ],
)
def test_a_plugin_with_a_wrong_registration_is_reported(tmp_path, source, complaint):
    site = write_plugin(tmp_path / "site", "odd", source)
    done = run_plastic("rules", folders=[site])
    assert done.returncode == 0
    assert "'odd' (plastic-odd 1.0) does not load" in done.stderr
    assert complaint in done.stderr


def test_strict_raises_what_a_plugin_raises(tmp_path):
    broken = write_plugin(tmp_path / "site", "broken", "1 / 0\n")
    done = run_plastic("rules", folders=[broken], PLASTIC_STRICT="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_one_plugin_may_bring_several_rules(tmp_path):
    source = rule_source("first") + "def second():\n    pass\n"
    source = source.replace("    return Rule(", "    make = Rule(").split("def second")[0]
    source += "    return [make, Rule(name='second', summary='B', citation='c', commands='plastic_grlu.commands')]\n"
    site = write_plugin(tmp_path / "site", "many", source)
    done = run_plastic("rules", "--json", folders=[site])
    assert {"first", "second"} <= {row["rule"] for row in json.loads(done.stdout)}
