"""The documentation site: it is built without a warning, is complete, and can be read and searched offline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from docs.pages import ROOT
from plastic_cli.app import RootGroup
from plastic_cli.commands.verbs import rule_command
from plastic_cli.plugins.discovery import discover
from plastic_cli.plugins.rule import VERBS
from plastic_cli.sweeps.recipe import recipe_names

for needed in ("mkdocs", "material", "mkdocstrings", "nbconvert"):
    pytest.importorskip(needed, reason="the packages of the site are not installed: pip install '.[docs]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """What the tests ask of one built page: anchors, links, what the browser loads, and text of paragraphs."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.paragraphs = set(), [], [], []
        self.depth = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("script", "img", "source", "video", "iframe") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag == "link" and attributes.get("rel") not in ("prev", "next", "canonical"):
            self.loaded.append(attributes["href"])
        if tag == "p":
            self.paragraphs.append("")
            self.depth = 1
        elif tag in ("pre", "table"):
            self.depth = 0

    def handle_endtag(self, tag):
        if tag == "p":
            self.depth = 0

    def handle_data(self, data):
        if self.depth:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        # The page of a missing address is shown at any address: its links begin at the root.
        for link in (link for link in page.links + page.loaded if path.name != "404.html"):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            is_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not target.is_file() or not is_anchor:
                broken.append((path.name, link))
    assert broken == []


def test_nothing_is_loaded_from_another_host(site, pages):
    for path, page in pages.items():
        assert [address for address in page.loaded if urlsplit(address).netloc] == [], path
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?https?:", style.read_text(encoding="utf-8")), style


def test_no_list_is_shown_as_a_paragraph(pages):
    for path, page in pages.items():
        swallowed = [text for text in page.paragraphs if re.search(r"(^|\n) *(- |1\. |\| )|```", text)]
        assert swallowed == [], path


def test_every_command_and_option_is_in_the_reference(site):
    folder = site / "reference/command-line"
    for name, entry in RootGroup.entries.items():
        if name not in (*VERBS, "tune"):
            assert_lists(folder / f"{name}.html", entry.build(name))
    for name, rule in discover().rules.items():
        for verb in (verb for verb in VERBS if rule.function(verb)):
            assert_lists(folder / f"rule-{name}.html", rule_command(verb, name))


def assert_lists(page, command):
    text = page.read_text(encoding="utf-8")
    for part in (command, *getattr(command, "commands", {}).values()):
        for parameter in part.params:
            if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                for option in parameter.opts:
                    assert option.strip() in text, f"{page.name}: {option}"


def test_every_public_name_is_in_the_reference(site):
    import plastic_cli

    anchors = Page((site / "reference/python/index.html").read_text(encoding="utf-8")).anchors
    assert {f"plastic_cli.{name}" for name in plastic_cli.__all__} <= anchors


def test_every_recipe_is_in_the_reference(site):
    text = (site / "reference/recipes.html").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"<code>{name}</code>" not in text] == []


def test_every_page_of_the_repository_is_in_the_site(site):
    for path in (ROOT / "docs").rglob("*.md"):
        assert (site / path.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), path


def test_the_leaderboard_is_a_small_page_and_no_row_is_in_the_search(site):
    page = site / "leaderboard.html"
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 2_000 * text.count("<tr ")
    assert text.count("<tr ") > 300
    assert "not measured" in text
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    assert "the table is not a race" in index
    assert "plastic train grlu --hidden 1024,1024" in text
    assert "plastic train grlu --hidden 1024,1024" not in index


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param((390, 844), "dark", id="phone-dark"),
        pytest.param((390, 844), "light", id="phone-light", marks=pytest.mark.slow),
        pytest.param((1280, 900), "light", id="desk-light", marks=pytest.mark.slow),
        pytest.param((1280, 900), "dark", id="desk-dark", marks=pytest.mark.slow),
    ],
)
def test_the_leaderboard_is_sorted_and_filtered_in_the_page(site, size, scheme):
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True, color_scheme=scheme)
        context.set_default_timeout(20_000)
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"file://{site}/leaderboard.html")
        filters, rows = page.locator("#filters"), page.locator("#results-table tbody tr")
        everything = rows.count()
        filters.get_by_label("Rule").select_option("grlu")
        filters.get_by_label("Data set").select_option("mnist")
        filters.get_by_label("Recipe").select_option("grlu-gr-02")
        assert page.locator("#results-table tbody tr:visible").count() == 1
        assert f"1 of {everything} results are shown" in filters.inner_text()
        row = page.locator("#results-table tbody tr:visible")
        assert "92.83" in row.inner_text(), "the published figure"
        assert "plastic train grlu --dataset mnist" in row.inner_text()
        filters.get_by_label("Recipe").select_option("all")
        button = page.locator("#results-table thead").get_by_role("button", name="result", exact=True)
        button.click()
        button.click()
        place = page.locator("#results-table thead th").all_inner_texts().index("result")
        shown = page.locator("#results-table tbody tr:visible").all()
        values = [row.locator("th, td").nth(place).get_attribute("data-sort") for row in shown]
        measured = [float(value) for value in values if value]
        assert len(measured) > 5
        assert measured == sorted(measured, reverse=True)
        # What needs room scrolls in its frame.
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert said == []
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
        found = axe.Axe().run(page, context=".tables").response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_it_can_be_read_and_searched_without_a_network(site, size):
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True)
        context.set_default_timeout(20_000)
        page = context.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for address in ("index.html", "rules/grlu.html", "reference/command-line/rule-grlu.html"):
            page.goto(f"file://{site}/{address}")
            # Wide tables and listings scroll in a frame; the page itself does not scroll sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], address
        if size[0] < 1000:
            page.locator("label.md-header__button[for='__search']").click()
        page.locator("input.md-search__input").click()
        page.locator("input.md-search__input").press_sequentially("perturbations")
        page.locator(".md-search-result__link").first.wait_for()
        assert any("grlu" in link.get_attribute("href") for link in page.locator(".md-search-result__link").all())
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        browser.close()
