"""Pages and files of the repository outside `docs/`, and the links to them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    "README.md": "index.md",
    "recipes/README.md": "reference/recipes.md",
    "benchmarks/README.md": "reference/benchmarks.md",
    "CHANGELOG.md": "reference/changes.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "SECURITY.md": "reference/security.md",
    "CODE_OF_CONDUCT.md": "reference/code-of-conduct.md",
}
"""Pages outside `docs/` by their path in the repository, with their address in the site."""

LANGUAGES = {".py": "python", ".pyi": "python", ".toml": "toml", ".cff": "yaml", ".yml": "yaml"}

LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")


def pages() -> dict[str, str]:
    """Return the pages outside `docs/` by their address; the first page of the site is `docs/index.md`."""
    return {address: _text(path) for path, address in PAGES.items() if path != "README.md"}


def sources() -> dict[str, str]:
    """Return a page for each file of the repository that a page links to, such as the code of a rule."""
    return {_source_address(path): _source_page(path) for page in _all_pages() for path in _linked_files(page)}


def with_links_of_the_site(markdown: str, address: str) -> str:
    """Return the text of a page with links to files of the repository replaced by links to pages of the site."""
    here = _path_in_repository(address)
    if here is None:
        return markdown

    def of_the_site(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), found[1]))
        target = _address(path) if (ROOT / path).is_file() else None
        return posixpath.relpath(target, posixpath.dirname(address) or ".") + (found[2] or "") if target else found[0]

    return LINK.sub(of_the_site, markdown)


def _all_pages() -> Iterator[str]:
    yield from (path for path in PAGES if path != "README.md")
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield path.relative_to(ROOT).as_posix()


def _linked_files(page: str) -> Iterator[str]:
    for found in LINK.finditer(_text(page)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[1]))
        if not path.startswith("docs/") and path not in PAGES and (ROOT / path).is_file():
            yield path


def _address(path: str) -> str:
    if path.startswith("docs/"):
        # A notebook is shown as a page, once it has been run.
        is_notebook = path.startswith("docs/notebooks/") and (ROOT / path).with_suffix(".ipynb").is_file()
        return str(Path(path).with_suffix(".md") if is_notebook else path).removeprefix("docs/")
    return PAGES.get(path) or _source_address(path)


def _path_in_repository(address: str) -> str | None:
    if (ROOT / "docs" / address).is_file():
        return f"docs/{address}"
    return next((path for path, other in PAGES.items() if other == address), None)


def _source_address(path: str) -> str:
    return f"source/{path}.md"


def _source_page(path: str) -> str:
    language = LANGUAGES.get(Path(path).suffix, "text")
    head = "---\nsearch: { exclude: true }\nhide: [navigation, toc]\n---\n"
    return f"{head}\n# {path}\n\n````` {language}\n{_text(path).rstrip()}\n`````\n"


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
