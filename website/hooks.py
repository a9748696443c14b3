"""Hooks of MkDocs: pages that are made while the site is built, and links that lead out of `docs/`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

# MkDocs loads this file by its path; its neighbors are imported by name.
sys.path.append(str(Path(__file__).parent))

import command_line
import leaderboard
import notebooks
import python_interface
import recipe_table
import repository

PARTS = {
    "commands": command_line.overview,
    "public names": python_interface.overview,
    "recipes": recipe_table.overview,
}
"""What replaces `<!-- plastic: NAME -->` in a page."""


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation, after the page of their section."""
    sections = {"Command line": command_line.pages(), "Python": python_interface.pages()}
    for entry in config.nav:
        for part in entry.get("Reference", []):
            for title, pages in part.items():
                if title in sections:
                    part[title] = [*pages, *sections[title]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, those of the repository that are not in `docs/`, and the files that pages link to."""
    generated = (command_line.pages(), python_interface.pages(), repository.pages(), repository.sources())
    for made in (*generated, notebooks.pages()):
        for address, content in made.items():
            files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the generated parts, show the names of listings, and let links lead to the pages of the site."""
    text = re.sub(r"^<!-- plastic: ([\w ]+) -->$", lambda found: PARTS[found[1]](), markdown, flags=re.MULTILINE)
    text = re.sub(r"^ *<!-- (measured: \S+|end) -->\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"<!-- (number: [^\n]+?|end) -->", "", text)
    text = re.sub(r"^```(\w+) file=(\S+)$", r'``` { .\1 title="\2" }', text, flags=re.MULTILINE)
    return repository.with_links_of_the_site(_with_wide_lists(text), page.file.src_uri)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Keep intervals on one line, and put the leaderboard, whose cells Markdown does not see, into its wide page."""
    if leaderboard.MARK not in html:
        return _with_whole_intervals(html)
    page.meta["hide"] = ["navigation", "toc"]
    return html.replace(leaderboard.MARK, leaderboard.html())


def _with_whole_intervals(html: str) -> str:
    """Mark the intervals of table cells, which a browser breaks at the space after the comma."""
    return re.sub(
        r"<td[^>]*>[^<]*</td>",
        lambda cell: re.sub(r"\[-?[\d.,]+, -?[\d.,]+\]", r'<span class="interval">\g<0></span>', cell[0]),
        html,
    )


def _with_wide_lists(text: str) -> str:
    """Indent what belongs to an item of a list by four spaces, as this Markdown needs it; on GitHub two are enough."""
    lines: list[str] = []
    in_list, in_fence, has_paragraphs = False, False, False
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        after_blank = not lines or not lines[-1].strip()
        if re.match(r"(- |\d+\. )", line) and not in_fence:
            if has_paragraphs and not after_blank:
                lines.append("")
            in_list, has_paragraphs = True, False
        elif line.strip() and after_blank:
            in_list, has_paragraphs = in_list and indent > 0, True
        if line.startswith("```"):
            in_fence = not in_fence
        deeper = 4 * (indent // 2) - indent if in_list and not in_fence and indent > 1 else 0
        lines.append(" " * deeper + line)
    return "\n".join(lines)
