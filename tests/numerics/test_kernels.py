"""The compiler of kernels: its cache folder, and what happens without one."""

import ast
from pathlib import Path

import pytest

from plastic_cli.numerics import kernels
from plastic_cli.numerics.kernels import Kernels


@pytest.fixture
def source(tmp_path):
    """A folder of kernel files."""
    folder = tmp_path / "kernels"
    (folder / "inner").mkdir(parents=True)
    (folder / "learn.py").write_text("a = 1\n")
    (folder / "inner" / "noise.py").write_text("b = 2\n")
    (folder / "notes.txt").write_text("not code\n")
    return folder


def cache_folder(source: Path) -> str:
    return Kernels(source)._cache_folder()


def test_the_cache_changes_when_any_kernel_file_changes(source):
    before = cache_folder(source)
    assert cache_folder(source) == before
    (source / "notes.txt").write_text("still not code\n")
    assert cache_folder(source) == before
    seen = {before}
    (source / "inner" / "noise.py").write_text("b = 3\n")
    seen.add(cache_folder(source))
    (source / "added.py").write_text("c = 4\n")
    seen.add(cache_folder(source))
    (source / "added.py").unlink()
    (source / "learn.py").write_text("a = 2\n")
    seen.add(cache_folder(source))
    assert len(seen) == 4


def test_the_cache_of_a_single_kernel_file_depends_on_that_file_alone(source):
    file = source / "learn.py"
    before = cache_folder(file)
    (source / "inner" / "noise.py").write_text("b = 3\n")
    assert cache_folder(file) == before
    file.write_text("a = 2\n")
    assert cache_folder(file) != before


def test_a_kernel_runs_without_a_cache(monkeypatch, tmp_path):
    options = []

    def njit(**chosen):
        options.append(chosen)
        if chosen.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels.numba, "njit", njit)
    before = kernels.numba.config.CACHE_DIR
    double = Kernels(tmp_path).kernel(lambda value: 2 * value)
    assert double(4) == 8
    assert [chosen.get("cache", False) for chosen in options] == [True, False]
    assert before == kernels.numba.config.CACHE_DIR


def test_a_kernel_runs_where_the_cache_cannot_be_written(monkeypatch, tmp_path):
    calls = []

    def full_disk_once(value):
        calls.append(value)
        if len(calls) == 1:
            raise OSError("No space left on device")
        return value

    monkeypatch.setattr(kernels.numba, "njit", lambda **_: lambda function: full_disk_once)
    assert Kernels(tmp_path).kernel(lambda value: value)(3) == 3


PLUGINS = Path(__file__).parents[2] / "plugins"
COMPILERS = sorted(file for file in PLUGINS.rglob("*.py") if "Kernels(Path(__file__)" in file.read_text())


@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_kernels_import_no_code_that_the_cache_does_not_know(compiler):
    folder = "Kernels(Path(__file__).parent)" in compiler.read_text()
    files = Kernels(compiler.parent if folder else compiler).files
    modules = {".".join(file.relative_to(PLUGINS).with_suffix("").parts) for file in files}
    modules |= {"plastic_cli.numerics.kernels", "plastic_cli.errors"}  # the first is part of the cache's name
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plastic_"):
                assert node.module in modules, f"{file.name} imports {node.module}"


def test_every_rule_with_kernels_is_checked():
    assert {path.relative_to(PLUGINS).parts[0] for path in COMPILERS} >= {"plastic_grlu", "plastic_mpn"}
