"""The page: what is on it, that nothing else is needed, and that nothing in runs can break out of it."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotnine import (
    aes,
    coord_cartesian,
    coord_flip,
    facet_wrap,
    geom_point,
    ggplot,
    labs,
    scale_color_manual,
    scale_x_log10,
)

from plastic_cli.api.report import make_report
from plastic_cli.errors import PlasticError
from plastic_cli.figures.files import svg_text
from plastic_cli.figures.theme import ON_DARK, PALETTE, theme_plastic
from plastic_cli.reports.drawings import hover_values, inline_svg, page_figure
from plastic_cli.reports.grouping import setting_and_data
from plastic_cli.reports.html_tables import PageCell, PageTable, css_text, page_cell, table_html
from plastic_cli.reports.options import ReportOptions, Sources
from plastic_cli.statistics.intervals import mean_interval
from plastic_cli.tables import Column, Detailed, Number, Table
from reports.report_frames import CLAIMS, grlu_experiments
from reports.stores import write_store

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = '<img src=x onerror="alert(1)">'


class Reader(HTMLParser):
    """A page as a list of (path of tags, attributes) and the text in each."""

    def __init__(self, text):
        super().__init__()
        self.path, self.elements, self.texts = [], [], {}
        self.feed(text)
        assert self.path == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.path)))
        if tag not in VOID:
            self.path.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.path)))

    def handle_endtag(self, tag):
        assert self.path.pop() == tag

    def handle_data(self, data):
        if self.path:
            self.texts.setdefault(self.path[-1], []).append(data)

    def all(self, tag):
        return [attributes for found, attributes, _ in self.elements if found == tag]

    def text(self, tag):
        return " ".join(self.texts.get(tag, []))


def write_report(options, sources):
    make_report(options, sources).write_chosen()


def headline(runs, metrics):
    return {"headline": ggplot(runs, aes("config.perturbations", "test/accuracy")) + geom_point() + labs(title="Ours")}


NOTHING_INSTALLED = Sources({}, {}.get, {})
RECIPES = {("grlu", "GR-02"): ["grlu-gr-02", "grlu-quick"]}


def write_page(folder, runs, metrics, claims=None, headlines=None, recipes=RECIPES, recipes_of=None, **options):
    store = folder / "store"
    write_store(store, runs, metrics)
    made = {"grlu": headline} if headlines is None else headlines
    sources = Sources({"grlu": CLAIMS} if claims is None else claims, made.get, recipes, recipes_of or {})
    write_report(ReportOptions(runs=store, html=folder / "page", **options), sources)
    return (folder / "page" / "index.html").read_text()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), *grlu_experiments(seeds=3))


@pytest.fixture(scope="module")
def page(text):
    return Reader(text)


def test_nothing_is_loaded_from_anywhere(page, text):
    loading = [
        attributes.get("src") for tag in ("img", "script", "iframe", "audio", "video") for attributes in page.all(tag)
    ]
    assert set(loading) <= {None}
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    addresses = [attributes["href"] for attributes in page.all("a")]
    assert all(address.startswith(("#", "https://")) for address in addresses)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_every_claim_stands_with_source_measurement_verdict_and_recipe(text):
    rows = re.findall(r"<tr.*?</tr>", text[text.index('<table id="claims-table"') :], re.DOTALL)
    row = next(row for row in rows if ">GR-02<" in row)
    assert "92.83 ± 0.5" in row
    assert '<a class="detail" href="https://example.org" rel="noreferrer">configs.md, Run 1</a>' in row
    assert "one published seed" in row
    assert '<span class="badge reproduced">reproduced</span>' in row
    assert re.search(r'data-sort="0\.92\d+" class="number">92\.\d\d <span class="detail">\[92\.', row)
    assert re.search(r'<td class="number">3<', row), "its text is what it is sorted by"
    assert "<code>grlu-gr-02</code> <code>grlu-quick</code>" in row
    other = next(row for row in rows if ">GR-06<" in row)
    assert '<span class="badge not-reproduced">not reproduced</span>' in other
    assert "ours lies below" in other
    assert "<a " not in other
    assert "<code>" not in other


def test_results_comparisons_and_other_methods_are_there(page):
    captions = page.text("caption") + page.text("strong")
    for title in (
        "At a glance",
        "Claims with runs",
        "Results",
        "Interquartile means of",
        "Probability of",
        "Other methods",
    ):
        assert title in captions
    assert "Ren et al. 2023, Table 3" in page.text("a")


def test_every_figure_is_there_with_words_for_it(page):
    drawings = [a for tag, a, path in page.elements if tag == "svg"]
    assert len(drawings) == 4, "learning curves, claims, a performance profile and the rule's own"
    ids = {a["id"] for _, a, _ in page.elements if "id" in a}
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert {drawing["aria-labelledby"], drawing["aria-describedby"]} <= ids
    titles = page.text("h3")
    for title in ("Test accuracy", "Published and measured: test accuracy", "Performance profiles", "Ours"):
        assert title in titles
    words = page.text("p")
    assert "backprop on mnist 97" in words
    assert "GR-02: reproduced: published 92.83%, measured 92." in words


def test_what_was_run_comes_before_what_was_published(page):
    assert [a["id"] for a in page.all("section")] == ["results", "figures", "comparisons", "claims", "others"]


def test_claims_without_a_run_are_in_a_closed_table(tmp_path):
    runs, metrics = grlu_experiments(seeds=3)
    text = write_page(tmp_path, runs[runs["config.perturbations"] != 128], metrics)
    page = Reader(text)
    (fold,) = [a for a in page.all("details") if a.get("class") == "fold"]
    assert "open" not in fold
    assert "1 claim has no run here" in page.text("summary")
    folded = text[text.index('<table id="untested-claims-table"') :]
    assert ">GR-06<" in folded
    assert ">GR-02<" not in folded


def test_rows_and_figures_say_their_rules_and_data_sets(page):
    rows = [a for tag, a, path in page.elements if tag == "tr" and "data-rules" in a]
    assert {rule for a in rows for rule in json.loads(a["data-rules"])} == {"backprop", "grlu"}
    figures = [json.loads(a["data-rules"]) for a in page.all("figure")]
    assert ["backprop", "grlu"] in figures
    assert ["grlu"] in figures
    assert all(json.loads(a["data-datasets"]) == ["mnist"] for a in page.all("figure"))


def key_of(row):
    config = {name.removeprefix("config."): value for name, value in row.items() if name.startswith("config.")}
    return setting_and_data(row["rule"], row["dataset"], config)


def result_rows(page):
    """The attributes of the rows of the table of results."""
    tables = [a for a in page.all("table") if a["id"] == "results-table"]
    assert tables
    return [a for tag, a, _ in page.elements if tag == "tr" and "data-control" in a]


def test_rows_say_their_recipes_and_whether_they_are_controls(tmp_path):
    runs, metrics = grlu_experiments(seeds=3)
    rows = runs.to_dict("records")
    sixteen = next(row for row in rows if row["config.perturbations"] == 16 and row["config.k"] == 0.5)
    names = ["grlu-gr-02", EVIL]
    text = write_page(tmp_path, runs, metrics, recipes_of={key_of(sixteen): names})
    page = Reader(text)
    assert [a["data-control"] for a in result_rows(page)] == ["yes", "no", "no", "no", "no"], "backprop is first"
    recipes = [json.loads(a["data-recipes"]) for a in result_rows(page)]
    assert sorted(recipes) == [[], [], [], [], names]
    assert page.all("img") == []
    claims = [json.loads(a["data-recipes"]) for tag, a, _ in page.elements if tag == "tr" and "data-recipes" in a]
    assert ["grlu-gr-02", "grlu-quick"] in claims, "a claim names the recipes that test it"


def test_a_heading_in_a_style_is_a_string_and_ends_nothing():
    text = css_text('a "b"; } </style> \\ \n é')
    assert re.fullmatch(r'"(?:[A-Za-z0-9]|\\[0-9a-f]+ )*"', text)
    decoded = re.sub(r"\\([0-9a-f]+) ", lambda found: chr(int(found[1], 16)), text.strip('"'))
    assert decoded == 'a "b"; } </style> \\ \n é'


def test_a_cell_is_sorted_by_its_text_or_says_by_what():
    interval = mean_interval([0.5, 0.6, 0.7])
    cells = {
        "plain": ("plain", True), "set = 1, on": ("set = 1, on", True), "number": (Number("1.2 M", value=1.2e6), False),
        "interval": (interval, False), "nothing": (None, True), "detail": (Detailed("a", "b"), False),
        "verdict": (Detailed("reproduced"), True), "code": (PageCell("", sort="a", code=("a", "b")), True),
        "other code": (PageCell("", sort="b", code=("a", "b")), False),
        "link": (PageCell("x", sort="x", source="s"), False),
    }  # fmt: skip
    for name, (cell, by_text) in cells.items():
        assert page_cell(cell, "setting" if "set" in name else "other").sorts_by_text == by_text, name


def test_without_recipes_no_row_is_without_one(page):
    assert all("data-recipes" not in a for a in result_rows(page))


def test_ids_are_unique_and_references_lead_somewhere(page, text):
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    references = {a[key] for _, a, _ in page.elements for key in ("aria-labelledby", "aria-describedby") if key in a}
    references |= {a["href"][1:] for _, a, _ in page.elements if a.get("href", "").startswith("#")}
    references |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert references <= set(ids)


def test_tables_say_what_heads_what(page):
    assert page.all("html")[0]["lang"] == "en"
    tables = page.all("table")
    assert len(tables) == len(page.all("caption")) == 6
    assert all(a["scope"] in ("row", "col") for a in page.all("th"))
    body_rows = [a for tag, a, path in page.elements if tag == "tr" and path[-1] == "tbody"]
    assert len([a for a in page.all("th") if a["scope"] == "row"]) == len(body_rows)
    headings = [tag for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2", "h3"}
    assert headings[1] == "h2"


def evil_store():
    runs, metrics = grlu_experiments(seeds=3)
    runs["config.note"] = [EVIL if index % 2 else "</script><script>alert(2)</script>" for index in range(len(runs))]
    runs["dataset"] = EVIL
    metrics["metric"] = metrics["metric"].replace("accuracy", "acc<b>uracy")
    return runs.rename(columns={"test/accuracy": "test/acc<b>uracy"}), metrics


def test_what_comes_from_runs_rules_and_recipes_is_text(tmp_path):
    claims = CLAIMS.replace("test/accuracy", "test/acc<b>uracy").replace('dataset = "mnist", ', "")
    claims = claims.replace('dataset = "mnist"', "").replace('"16 perturbations', f"'''{EVIL}''' #").replace(
        '"https://example.org"', '"javascript:alert(3)"'
    ).replace('source = "configs.md, Run 1"', f"source = '''{EVIL}'''")  # fmt: skip
    recipes = {("grlu", "GR-02"): [EVIL]}
    runs, metrics = evil_store()

    def evil_headline(runs, metrics):
        return {f"x{EVIL[:4]}": ggplot(runs, aes("seed", "seconds")) + geom_point() + labs(title=EVIL, caption=EVIL)}

    text = write_page(
        tmp_path, runs, metrics, claims={"grlu": claims}, recipes=recipes, headlines={"grlu": evil_headline}
    )
    page = Reader(text)
    assert page.all("img") == []
    assert page.all("b") == []
    assert len(page.all("script")) == 1
    assert "javascript:" not in text
    assert not any(key.startswith("on") for _, attributes, _ in page.elements for key in attributes)
    assert EVIL.replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;") in text


def test_a_rules_own_figure_that_cannot_be_drawn_costs_only_itself(tmp_path, capsys):
    def broken(runs, metrics):
        return {"good": ggplot(runs, aes("seed", "seconds")) + geom_point() + labs(title="Ours"),
                "bad": ggplot(runs, aes("no such column", "seconds")) + geom_point()}  # fmt: skip

    runs, metrics = grlu_experiments(seeds=1)
    text = write_page(tmp_path, runs, metrics, headlines={"grlu": broken}, output=tmp_path / "tables")
    assert "grlu-good" in text
    assert "grlu-bad" not in text
    assert "the headline figure of grlu failed" in capsys.readouterr().err
    drawn = {path.name for path in (tmp_path / "tables" / "figures").glob("grlu-*")}
    assert drawn == {"grlu-good.png", "grlu-good.svg"}


def test_the_same_runs_give_the_same_page(tmp_path, text):
    assert write_page(tmp_path, *grlu_experiments(seeds=3)) == text


def test_a_table_for_another_page_is_whole_and_safe():
    columns = (Column("rule"), Column(f"result {EVIL}", numeric=True))
    rows = ((EVIL, Number("0.5", value=0.5)), ("b", None))
    made = PageTable(
        "own-table", Table(EVIL, "</style><b>", columns, rows), recipes=((EVIL,), ()), controls=(True, False)
    )
    text = table_html(made)
    part = Reader(text)
    assert [tag for tag, _, path in part.elements if path == ()] == ["style", "section", "script"]
    assert {tag for tag, _, _ in part.elements}.isdisjoint({"img", "b", "link", "html", "body"})
    assert len(part.all("script")) == len(part.all("style")) == 1
    ids = [a["id"] for _, a, _ in part.elements if "id" in a]
    assert sorted(ids) == ["announcement", "filters", "own-table", "own-table-title"]


@pytest.mark.parametrize("name", ["", "a b", "1a", 'a"', "a}b"])
def test_the_name_of_a_table_is_an_id(name):
    with pytest.raises(ValueError, match="cannot be the name of a table"):
        PageTable(name, Table("", "", (), ()))


def test_an_empty_store_gives_a_page_that_says_so(tmp_path):
    (tmp_path / "store").mkdir()
    write_report(ReportOptions(runs=tmp_path / "store", html=tmp_path / "page"), NOTHING_INSTALLED)
    page = Reader((tmp_path / "page" / "index.html").read_text())
    assert "There is no run to report yet" in page.text("p")
    assert page.all("table") == []


def test_results_without_a_comparison_are_counted(tmp_path):
    runs, metrics = grlu_experiments(seeds=1)
    runs.loc[runs["rule"] == "backprop", "dataset"] = "digits"
    text = write_page(tmp_path, runs, metrics)
    assert "1 result is not compared, because no other setting has the same data set and metric" in text


def test_runs_that_are_not_counted_are_named(tmp_path):
    runs, metrics = grlu_experiments(seeds=1)
    write_store(tmp_path / "store", runs.assign(run=[f"f{i}" for i in range(len(runs))]), metrics, status="failed")
    assert "Not counted: 5 failed" in write_page(tmp_path, runs, metrics)


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    runs, metrics = grlu_experiments(seeds=1)
    before = write_page(tmp_path, runs, metrics)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plastic_cli.reports.write.write_atomically", full)
    with pytest.raises(PlasticError, match=r"No space left on device. Choose another --html"):
        write_report(ReportOptions(runs=tmp_path / "store", html=tmp_path / "page"), NOTHING_INSTALLED)
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]
    assert (tmp_path / "page" / "index.html").read_text() == before


def test_a_file_in_the_way_is_reported_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "page").write_text("mine")
    with pytest.raises(PlasticError, match=r"it is a file\. Choose another --html"):
        write_report(ReportOptions(runs=tmp_path / "store", html=tmp_path / "page"), NOTHING_INSTALLED)
    assert (tmp_path / "page").read_text() == "mine"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mine", ["<h1>My own page</h1>", "", None])
def test_a_page_that_plastic_did_not_write_stays(tmp_path, mine):
    (tmp_path / "store").mkdir()
    page = tmp_path / "page" / "index.html"
    page.mkdir(parents=True) if mine is None else (page.parent.mkdir(), page.write_text(mine))
    with pytest.raises(PlasticError, match="Choose another --html"):
        write_report(ReportOptions(runs=tmp_path / "store", html=page.parent), NOTHING_INSTALLED)
    assert page.is_dir() if mine is None else page.read_text() == mine


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "notes.txt").write_text("mine")
    write_page(tmp_path, *grlu_experiments(seeds=1))
    assert (tmp_path / "page" / "notes.txt").read_text() == "mine"


# -------------------------------------------------------------------------------------------------------- inline SVG


@pytest.fixture(scope="module")
def drawing():
    frame = pd.DataFrame({"x": [1, 2], "y": [3, 4], "rule": ["a", "b"]})
    figure = ggplot(frame, aes("x", "y", color="rule")) + geom_point() + scale_color_manual(values=list(PALETTE[:2]))
    return svg_text(figure + theme_plastic() + labs(title="Two"), "two")


def test_two_drawings_on_one_page_share_no_id(drawing):
    ids = [set(re.findall(r' id="([^"]+)"', inline_svg(drawing, name))) for name in ("one", "other")]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


def test_an_inline_drawing_scales_and_styles_nothing_but_itself(drawing):
    element = ElementTree.fromstring(inline_svg(drawing, "one"))
    assert element.tag == "svg"
    assert element.get("viewBox")
    assert element.get("height") is None
    tags = {child.tag for child in element.iter()}
    assert tags.isdisjoint({"style", "metadata", "script"})
    assert {"path", "use"} <= tags
    assert tags.isdisjoint({"title", "desc"}), "the page has these words as text"


def test_a_drawing_takes_the_neutral_colors_of_the_page(drawing):
    shown = inline_svg(drawing, "one").lower()
    assert "var(--figure-paper)" in shown
    assert "var(--figure-ink)" in shown
    assert not {color.lower() for color in ON_DARK} & set(re.findall(r"#\w{6}", shown))
    assert PALETTE[0].lower() in shown


def test_a_drawing_with_another_theme_keeps_its_white_background():
    frame = pd.DataFrame({"x": [1, 2], "y": [3, 4]})
    shown = inline_svg(svg_text(ggplot(frame, aes("x", "y")) + geom_point(), "own"), "own")
    assert "var(--figure" not in shown
    assert "#ffffff" in shown


def test_the_values_of_a_figure_lie_on_its_points():
    frame = pd.DataFrame({"x": [1, 10, 100] * 2, "y": [1.0, 2, 3, 3, 2, 1], "rule": ["a"] * 3 + ["b"] * 3})
    figure = ggplot(frame, aes("x", "y", color="rule")) + geom_point() + facet_wrap("rule") + scale_x_log10()
    drawn = page_figure(figure + labs(x="size", title="Six", caption="Note"), "six", "six")
    assert (drawn.title, drawn.caption, drawn.subtitle) == ("Six", "Note", "")
    assert "Note" not in drawn.description, "each text is on the page once"
    svg = ElementTree.fromstring(drawn.svg)
    values = {circle.findtext("title"): (circle.get("cx"), circle.get("cy")) for circle in svg.iter("circle")}
    assert "b, size: 10, y: 2" in values
    assert len(values) == 6
    # All points are at ticks of both axes.
    ticks = [(use.get("x"), use.get("y")) for use in svg.iter("use") if use.get("x")]
    for x, y in values.values():
        assert any(float(x) == pytest.approx(float(tick), abs=0.1) for tick, _ in ticks)
        assert any(float(y) == pytest.approx(float(tick), abs=0.1) for _, tick in ticks)
    assert float(values["a, size: 1, y: 1"][1]) > float(values["a, size: 100, y: 3"][1]), "y goes up"


@pytest.mark.parametrize("flip", [False, True])
def test_values_on_named_places_lie_on_their_row(flip):
    frame = pd.DataFrame({"x": ["b", "a", "c"], "y": [1.0, 2, 3]})
    figure = ggplot(frame, aes("x", "y")) + geom_point() + (coord_flip() if flip else coord_cartesian())
    svg = ElementTree.fromstring(page_figure(figure, "names", "names").svg)
    values = {circle.findtext("title")[3]: circle for circle in svg.iter("circle")}
    order = sorted("abc", key=lambda name: float(values[name].get("cy" if flip else "cx")))
    assert order == (["c", "b", "a"] if flip else ["a", "b", "c"])


def test_values_outside_of_the_axes_are_left_out_and_do_not_move_the_axes():
    frame = pd.DataFrame({"x": [0, 1, 2], "y": [0.1, 0.9, 0.95]})
    figure = ggplot(frame, aes("x", "y")) + geom_point(data=frame[1:])
    svg = ElementTree.fromstring(page_figure(figure, "part", "part").svg)
    assert {circle.findtext("title") for circle in svg.iter("circle")} == {"x: 1, y: 0.9", "x: 2, y: 0.95"}


def test_a_figure_of_many_points_says_some_of_them():
    frame = pd.DataFrame({"x": range(5000), "y": range(5000)})
    values = hover_values(ggplot(frame, aes("x", "y")) + geom_point())
    assert 300 <= len(values) <= 600
    assert values["hover"].iloc[0] == "x: 0, y: 0"


def test_a_figure_without_columns_on_both_axes_says_no_values():
    assert hover_values(ggplot(pd.DataFrame({"x": [1]}), aes("x"))) is None
    assert hover_values(ggplot() + geom_point(aes("x", "x"), data=pd.DataFrame({"x": [1]}))) is None


def test_a_drawing_runs_no_code():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 1 1"'
        ' height="1" onload="alert(1)"><script>alert(1)</script><a xlink:href="javascript:alert(1)"><path/></a>'
        '<image xlink:href="https://example.org/x.png"/><foreignObject><p xmlns="http://www.w3.org/1999/xhtml">x</p>'
        "</foreignObject><g onclick='alert(1)'><path d='M0 0'/></g></svg>"
    )
    shown = inline_svg(svg, "x")
    for word in ("alert", "script", "example.org", "foreignObject", "onclick", "onload"):
        assert word not in shown
    assert "<path" in shown
