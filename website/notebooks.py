"""Notebooks: the scripts of `docs/notebooks` are run here, stored with their results, and shown in the site.

python website/notebooks.py              # run all scripts and write a notebook next to each
python website/notebooks.py first_run    # run one
"""

from __future__ import annotations

import base64
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/notebooks"

PICTURE = re.compile(r"data:image/(\w+);base64,([A-Za-z0-9+/=\s]+?)(?=[\"')])")


@cache
def pages() -> dict[str, str | bytes]:
    """Return, by address in the site, the page of every notebook and the pictures that it shows."""
    from nbconvert import MarkdownExporter

    found: dict[str, str | bytes] = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        text, resources = MarkdownExporter().from_filename(str(path))
        for name, content in resources["outputs"].items():
            found[f"notebooks/{path.stem}/{name}"] = content
            text = text.replace(f"]({name})", f"]({path.stem}/{name})")
        text, films = _with_films_as_files(text, path.stem)
        found |= films
        head, _, rest = _plain_tables(text).strip().partition("\n")
        download = f'<a href="{path.name}" download>Download this page as a notebook</a>, and open it in Jupyter.'
        found[f"notebooks/{path.stem}.md"] = f"{head}\n\n{download}\n{rest}\n"
    return found


def script(path: Path) -> Any:
    """Return the notebook that a script is, without results."""
    import jupytext

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def execute(notebook: Any, folder: Path, timeout: int = 120) -> Any:
    """Run a notebook in `folder` and return it with its results; raises CellExecutionError if a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            # What shows the progress of training is empty at the end.
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
    notebook.metadata.pop("language_info", None)
    # The folder of this run is of no interest.
    return nbformat.reads(nbformat.writes(notebook).replace(str(folder), "/home/you/notebook"), as_version=4)


def _is_progress(output: Any) -> bool:
    data = output.get("data", {})
    return output.get("name") == "stderr" or (set(data) == {"text/html", "text/plain"} and not data["text/plain"])


def _with_films_as_files(text: str, stem: str) -> tuple[str, dict[str, bytes]]:
    """Return the text with its embedded pictures as files, which a page loads when they are seen."""
    files: dict[str, bytes] = {}

    def as_file(found: re.Match[str]) -> str:
        name = f"{stem}/film-{len(files)}.{found[1]}"
        files[f"notebooks/{name}"] = base64.b64decode(found[2])
        return name

    return PICTURE.sub(as_file, text), files


def _plain_tables(text: str) -> str:
    """Return the text with the tables of pandas in the style of the site."""
    text = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    return re.sub(r' border="1" class="dataframe"| style="text-align: (right|left);?"', "", text)


def main() -> None:
    """Run the named scripts, or all, and write a notebook with the results next to each."""
    import nbformat

    for path in sorted(FOLDER.glob("*.py")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(execute(script(path), Path(folder)), path.with_suffix(".ipynb"))
            sys.stderr.write(f"ran {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
