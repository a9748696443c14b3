"""Modules of the user's own that an option names as MODULE:NAME. They are also found in the working directory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from plastic_cli.runs.run import Run


def import_own(reference: str, option: str) -> Any:
    """Return NAME of MODULE for the reference "MODULE:NAME". option: as typed, for errors, such as "--terms my:hebb".

    Raises UserError if MODULE is not the name of a module, if it cannot be imported, and if it has no NAME.
    """
    check_module_name(reference, option)
    module_name, _, name = reference.rpartition(":")
    try:
        with imports_from_working_directory():
            module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or module_name.startswith(error.name):
            raise no_such_module(module_name, option) from None
        raise UserError(f"{option}: the module {module_name} needs {error.name}, which is not installed.") from None
    except Exception as error:
        # The code of the module can raise anything.
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"{option}: the module {module_name} cannot be imported: {type(error).__name__}: {reason}."
        ) from error
    if module_name == "__main__" and not hasattr(module, name):
        raise UserError(
            f"{option}: {name} was defined in a notebook or a script, and this process does not know it. Define it"
            f" there again, or write it into a file of its own, such as my_code.py, and use my_code:{name}."
        )
    if not hasattr(module, name):
        where = getattr(module, "__file__", None)
        raise UserError(
            f"{option}: the module {module_name}{f' ({where})' if where else ''} has no {name}."
            f"{did_you_mean(name, vars(module))}"
        )
    return getattr(module, name)


def check_module_name(reference: str, option: str) -> None:
    """Raise UserError if the part of "MODULE:NAME" before the colon is a path in place of the name of a module."""
    module, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or module.endswith(".py"):
        stem = Path(module).name.removesuffix(".py")
        raise UserError(
            f"{option}: {module or 'an empty text'} is not the name of a module. In the folder of the file, write"
            f" {stem if stem.isidentifier() else 'MODULE'}:{name or 'NAME'}, without a path and without .py."
        )


def no_such_module(module: str, option: str) -> UserError:
    """Return the error for a module that Python has not found: of a package that it has imported, or at all."""
    parts = module.split(".")
    for count in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:count])
        if parent in sys.modules:
            inner = [found.name for found in iter_modules(getattr(sys.modules[parent], "__path__", ()))]
            guess = did_you_mean(parts[count], [name for name in inner if not name.startswith("_")])
            return UserError(f"{option}: {parent} has no module '{parts[count]}'.{guess or ' Name one that it has.'}")
    return UserError(
        f"{option}: there is no module {module} to import. Start plastic in the folder that contains"
        f" {module.partition('.')[0]}, or add this folder to PYTHONPATH."
    )


@contextmanager
def imports_from_working_directory() -> Iterator[None]:
    """Allow imports from the working directory, which is not on the path of an installed program."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    # At the end, so that no file of this folder hides a library.
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def module_version(module: str) -> dict[str, str]:
    """Return the version of the package of an imported module, by the name of the package.

    For a module that belongs to no installed package, the version is the first digits of the SHA-256 of its file.
    """
    package = module.partition(".")[0]
    for name in (package, *packages_distributions().get(package, ())):
        try:
            return {name: version(name)}
        except PackageNotFoundError:
            continue
    source = getattr(sys.modules.get(module), "__file__", None)
    if source is None or not Path(source).is_file():
        return {module: "unknown"}
    return {module: f"sha256 {hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}"}


def note_versions(run: Run, versions: Mapping[str, str]) -> None:
    """Store the versions of what a run imports, and say if they differ from those at the start of a resumed run."""
    for package, number in versions.items():
        before = run.record.versions.get(package, number)
        if before != number:
            run.message(f"run {run.id} began with {package} {before} and continues with {number}")
    run.write_record(versions={**run.record.versions, **versions})
