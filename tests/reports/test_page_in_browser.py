"""The page in headless Chromium: it draws, it sorts, its console stays empty, it can be read by anybody anywhere."""

import itertools
import shutil
import subprocess

import pandas as pd
import pytest

from plastic_cli.figures.theme import PALETTE
from reports.report_frames import grlu_experiments
from reports.test_page import EVIL, evil_store, key_of, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 375, "height": 800}}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # In a container there is no sandbox to be had; the page is ours.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs, metrics = grlu_experiments(seeds=3)
    # A setting with one seed has no interval, one without a loss an empty cell, and one a value near nothing.
    short = runs.iloc[:1].assign(run="short", **{"config.perturbations": 2, "test/accuracy": 9e-05, "test/loss": None})
    write_page(folder, pd.concat([runs, short], ignore_index=True), metrics)
    return f"file://{folder}/page/index.html"


@pytest.fixture
def open_page(browser, address):
    """A function that opens the page, and what the browser said and asked for meanwhile."""
    contexts = []

    def open_it(size="desk", scheme="light", url=address, **options):
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, offline=True, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: page.said.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_drawn_without_a_word_on_the_console(open_page, address, size, scheme):
    page = open_page(size, scheme)
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]
    assert page.locator("h1").is_visible()
    figures = page.locator("figure svg").all()
    assert len(figures) == 4
    for figure in figures:
        box = figure.bounding_box()
        assert min(box["width"], box["height"]) > 150
    # Nothing makes the page itself scroll sideways; wide drawings scroll in a frame of their own.
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
    assert (red + green + blue > 600) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(open_page, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(size, scheme, bypass_csp=True)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


def column(page, table, heading):
    index = page.locator(f"#{table} thead th").all_inner_texts().index(heading)
    cells = [row.locator("th, td").nth(index) for row in page.locator(f"#{table} tbody tr").all()]
    keys = [(cell.get_attribute("data-sort"), cell.text_content()) for cell in cells]
    return [text.strip("\N{EN DASH}") if key is None else key for key, text in keys]


def button(page, table, heading):
    return page.locator(f"#{table} thead").get_by_role("button", name=heading, exact=True)


def states(page, table):
    return [heading.get_attribute("aria-sort") for heading in page.locator(f"#{table} thead th").all()]


@pytest.mark.parametrize("size", SIZES)
def test_a_click_sorts_numbers_as_numbers_and_a_second_one_turns_round(open_page, size):
    page = open_page(size)
    accuracy = button(page, "results-table", "test accuracy (%)")
    accuracy.click()
    values = [float(value) for value in column(page, "results-table", "test accuracy (%)")]
    assert len(values) == 6
    assert values == sorted(values)
    assert values[0] == 9e-05, "as text it would come last"
    headings = page.locator("#results-table thead th").all_inner_texts()
    wanted = [None] * len(headings)
    wanted[headings.index("test accuracy (%)")] = "ascending"
    assert states(page, "results-table") == wanted
    accuracy.click()
    assert [float(value) for value in column(page, "results-table", "test accuracy (%)")] == values[::-1]
    wanted[headings.index("test accuracy (%)")] = "descending"
    assert states(page, "results-table") == wanted
    assert page.locator("#announcement").inner_text() == "Sorted by test accuracy (%), descending"
    assert page.said == []


def test_what_has_no_value_stays_last(open_page):
    page = open_page()
    for _ in range(2):
        button(page, "results-table", "test loss").click()
        values = column(page, "results-table", "test loss")
        assert values[-1] == ""
        assert all(values[:-1])


def test_the_keyboard_sorts_too(open_page):
    page = open_page()
    # From the table's frame, which can be scrolled by keys, one tab leads to the first heading.
    page.locator("[role=region]:has(> #results-table)").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "data set"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert column(page, "results-table", "rule") == ["backprop", *["grlu"] * 5]
    page.keyboard.press("Space")
    assert column(page, "results-table", "rule") == [*["grlu"] * 5, "backprop"]
    assert states(page, "results-table")[0] == "descending"


def test_sorting_one_table_leaves_the_others(open_page):
    page = open_page()
    before = column(page, "claims-table", "claim")
    button(page, "results-table", "rule").click()
    button(page, "results-table", "rule").click()
    assert column(page, "claims-table", "claim") == before
    assert set(states(page, "claims-table")) == {None}


def test_on_a_phone_each_row_is_a_card_that_names_its_values(open_page):
    page = open_page("phone")
    cell = page.locator("#claims-table tbody tr").first.locator("td").nth(2)
    assert page.evaluate("cell => getComputedStyle(cell, '::before').content", cell.element_handle()) == '"published"'
    boxes = [each.bounding_box() for each in page.locator("#claims-table tbody tr").first.locator("th, td").all()]
    assert all(lower["y"] >= upper["y"] + upper["height"] - 1 for upper, lower in itertools.pairwise(boxes))
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 375 for box in boxes)


def test_it_prints_black_on_white_without_what_needs_a_screen(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.plot svg')).filter") == "none"
    assert not page.locator("nav").is_visible()
    # A title and the names of columns are not left behind at the foot of a page.
    for part in ("caption", "thead"):
        style = page.locator(f"#claims-table {part}").evaluate(
            "part => { const s = getComputedStyle(part); return [s.breakInside, s.breakAfter]; }"
        )
        assert style == ["avoid", "avoid"]
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext: apt-get install poppler-utils")
def test_on_paper_headings_return_on_every_page_and_words_are_there(open_page, tmp_path):
    page = open_page()
    # So many rows that the table goes on over pages.
    page.evaluate(
        "() => { const body = document.querySelector('table.sortable').tBodies[0];"
        " for (let n = 0; n < 90; n++) body.append(body.rows[0].cloneNode(true)); }"
    )
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    *pages, behind = text.split("\f")
    assert behind == ""
    headings = page.locator("table.sortable").first.locator("thead th").all_inner_texts()
    # A long heading has several lines.
    words = {word for heading in headings for word in heading.split()}
    whole = [sheet for sheet in pages if words <= set(sheet.split())]
    assert len(whole) >= 2
    assert len(pages[-1].split()) > 20, "the foot of the page is not alone on a sheet"
    words = page.locator("details .note").first.text_content().split()
    assert " ".join(words[:4]) in " ".join(text.split())
    assert "In words" not in text


def test_without_scripts_the_tables_can_still_be_read(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#results-table tbody tr").count() == 6
    assert page.locator("thead button").count() == 0


def test_the_first_tab_leads_past_the_head(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#content"
    assert page.locator(".skip").bounding_box()["x"] >= 0


def test_nothing_in_runs_is_run(open_page, tmp_path):
    runs, metrics = evil_store()
    write_page(tmp_path, runs, metrics, headlines={})
    page = open_page(url=f"file://{tmp_path}/page/index.html")
    assert page.said == []
    assert EVIL in page.locator("#results-table").inner_text()
    assert page.locator("table img").count() == 0


def test_a_filter_shows_the_rows_and_figures_of_one_rule(open_page):
    page = open_page()
    page.get_by_label("Rule").select_option("backprop")
    assert page.locator("#results-table tbody tr:visible").count() == 1
    assert page.locator("#announcement").inner_text() == "1 of 6 results are shown"
    shown = [each.get_attribute("id") for each in page.locator("figure:visible").all()]
    assert "figure-learning-curves-test-accuracy" in shown
    assert "figure-grlu-headline" not in shown
    assert not page.locator("#claims-table").is_visible(), "no claim is about backprop"
    page.get_by_label("Rule").select_option("all")
    assert page.locator("#results-table tbody tr:visible").count() == 6
    assert page.locator("#claims-table").is_visible()


def shown(page):
    return page.locator("#results-table tbody tr:visible").count()


@pytest.fixture
def filtered(open_page, tmp_path):
    """A page with 15 results on three data sets, of which three are controls; two recipes have some of them."""
    runs, metrics = grlu_experiments(seeds=1, datasets=("mnist", "fashion", "digits"))
    rows = runs.to_dict("records")
    on = {dataset: [key_of(row) for row in rows if row["dataset"] == dataset] for dataset in set(runs["dataset"])}
    recipes_of = {**{key: ["all-of-mnist"] for key in on["mnist"]}, on["digits"][0]: ["digits-too", "all-of-mnist"]}
    write_page(tmp_path, runs, metrics, recipes_of=recipes_of, headlines={})
    return open_page(url=f"file://{tmp_path}/page/index.html")


def test_filters_by_recipe_words_and_controls_work_together(filtered):
    page = filtered
    assert shown(page) == 15
    page.get_by_label("Recipe").select_option("all-of-mnist")
    assert shown(page) == 6
    page.get_by_label("Data set").select_option("digits")
    assert shown(page) == 1
    page.get_by_label("Data set").select_option("all")
    page.get_by_label("Controls only").check()
    assert shown(page) == 1
    assert page.locator("#announcement").inner_text() == "1 of 15 results are shown"
    assert page.locator("#filters").get_by_text("1 of 15 results are shown").is_visible()
    page.get_by_label("Recipe").select_option("all")
    assert shown(page) == 3
    page.get_by_label("Controls only").uncheck()
    assert shown(page) == 15
    assert page.said == []


def test_a_search_finds_rows_that_have_all_words(filtered):
    page = filtered
    search = page.get_by_label("Search")
    # In the page a name and its value are joined by spaces that do not break.
    search.fill("Perturbations = 16")
    assert shown(page) == 6
    search.fill("perturbations = 16   fashion")
    assert shown(page) == 2
    search.fill("no such words")
    assert shown(page) == 0
    assert not page.locator("#results-table").is_visible()
    assert page.locator("#announcement").inner_text() == "0 of 15 results are shown"
    search.fill("")
    assert shown(page) == 15


def test_a_filter_is_reached_and_used_by_keys(filtered):
    page = filtered
    page.get_by_label("Rule").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("backprop")
    assert shown(page) == 3
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    page.keyboard.press("Space")
    assert shown(page) == 3
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_sorting_and_filters_do_not_disturb_each_other(filtered):
    page = filtered
    page.get_by_label("Data set").select_option("fashion")
    button(page, "results-table", "test accuracy (%)").click()
    assert shown(page) == 5
    values = [float(value) for value in column(page, "results-table", "test accuracy (%)")]
    assert len(values) == 15
    assert values == sorted(values)
    page.get_by_label("Data set").select_option("all")
    assert shown(page) == 15


def test_a_page_of_few_rows_needs_no_search(open_page):
    page = open_page()
    assert page.locator("#results-table tbody tr").count() == 6
    assert page.get_by_label("Rule").is_visible()
    assert page.get_by_label("Search").count() == 0


def test_a_filter_needs_two_values(open_page):
    page = open_page()
    assert page.get_by_label("Rule").is_visible()
    assert page.get_by_label("Data set").count() == 0, "all runs are on one data set"


def test_the_pointer_shows_the_values_of_the_closest_point(open_page):
    page = open_page()
    curves = page.locator("#figure-learning-curves-test-accuracy")
    point = curves.locator(".values circle").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 4, box["y"] + box["height"] / 2)
    note = page.locator(".value-note")
    assert note.is_visible()
    assert "epoch 10: 9" in note.inner_text()
    assert "%" in note.inner_text()
    inside = note.bounding_box()
    assert inside["x"] >= 0
    assert inside["x"] + inside["width"] <= 1280
    page.mouse.move(5, 5)
    assert not note.is_visible()


def test_without_scripts_a_point_has_its_values_as_a_title(open_page):
    page = open_page(java_script_enabled=False)
    titles = page.locator("#figure-learning-curves-test-accuracy .values title").all_text_contents()
    assert any(title.startswith("backprop, mnist, epoch 10: 97") for title in titles)
    assert not page.get_by_label("Rule").is_visible()


def test_figures_use_the_width_of_the_page(open_page):
    desk = [each.bounding_box() for each in open_page().locator("#figures figure").all()]
    assert desk[0]["y"] == desk[1]["y"], "two figures are next to each other"
    phone = [each.bounding_box() for each in open_page("phone").locator("#figures figure").all()]
    assert phone[0]["y"] < phone[1]["y"]


def test_nothing_in_a_figure_is_black_on_a_dark_page(open_page):
    page = open_page(scheme="dark")
    drawn = page.locator("figure:not(#figure-grlu-headline) svg :is(path, use)").evaluate_all(
        "parts => parts.filter(part => !part.closest('defs')).map(part => { const s = getComputedStyle(part);"
        " return [s.fill, s.stroke, s.opacity]; })"
    )
    assert len(drawn) > 100
    assert not [part for part in drawn if part[0] == "rgb(0, 0, 0)" or part[1] == "rgb(0, 0, 0)"]


def test_on_a_phone_a_wide_figure_is_scrolled_and_not_shrunk(open_page, tmp_path):
    runs, metrics = grlu_experiments(seeds=1, datasets=("mnist", "fashion"))
    write_page(tmp_path, runs, metrics)
    page = open_page("phone", url=f"file://{tmp_path}/page/index.html")
    frame = page.locator("figure.wide .plot").first
    assert frame.evaluate("frame => frame.scrollWidth > 2 * frame.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_has_the_background_of_the_page_and_its_data_keep_their_colors(open_page, scheme):
    page = open_page(scheme=scheme)
    figure = page.locator("#figure-learning-curves-test-accuracy svg")
    background, drawn = figure.evaluate(
        "svg => [getComputedStyle(svg.querySelector('path')).fill,"
        " [...svg.querySelectorAll('path')].map(path => getComputedStyle(path).stroke)]"
    )
    assert background == page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(PALETTE[0][start : start + 2], 16) for start in (1, 3, 5))
    assert f"rgb({red}, {green}, {blue})" in drawn


def test_at_1100_pixels_no_table_is_cut(open_page, tmp_path):
    recipes = {("grlu", "GR-02"): ["a-recipe-with-a-very-long-name-of-an-own-suite"]}
    runs, metrics = grlu_experiments(seeds=3)
    write_page(tmp_path, runs, metrics, recipes=recipes)
    page = open_page(url=f"file://{tmp_path}/page/index.html")
    page.set_viewport_size({"width": 1100, "height": 800})
    headings = page.locator("#results-table thead th").all_inner_texts()
    setting = page.locator("#results-table tbody tr").last.locator("th, td").nth(headings.index("setting"))
    assert setting.bounding_box()["width"] >= 200
    assert "perturbations\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}" in setting.inner_text()
    for frame in page.locator(".scroll:has(> table)").all():
        assert frame.evaluate("frame => frame.scrollWidth <= frame.clientWidth")
