import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_cli.statistics.intervals import Interval, mean_interval
from plastic_cli.tables import Column, Detailed, Number, Table, cell_text, html, markdown
from plastic_cli.terminal_tables import CAPTION_WIDTH, table_text, wrapped

WORDS = st.sampled_from(["a", "of", "rate", "accuracy", "perturbations", "0.5,", "=", "±", "16", "plastic/Simple-v0"])
TEXTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
NUMBERS = st.floats(-1e6, 1e6).flatmap(
    lambda mean: st.sampled_from(
        [
            Interval(mean, mean - 0.1, mean + 0.2, 5, "m"),
            Interval(mean, mean - 1e-7, mean + 1e5, 5, "m", dropped=2),
            Interval(mean, float("nan"), float("nan"), 1, "m"),
            Number(f"{mean:.2f}", f"± {abs(mean):.2f}", mean),
            mean,
        ]
    )
)


@st.composite
def tables(draw):
    headings = draw(
        st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=9, unique=True)
    )
    columns = []
    for heading in headings:
        numeric = draw(st.booleans())
        columns.append(Column(heading, numeric, draw(st.booleans()), not numeric and draw(st.booleans())))
    row = [
        st.one_of(st.none(), NUMBERS) if column.numeric else st.one_of(TEXTS, st.builds(Detailed, TEXTS, TEXTS))
        for column in columns
    ]
    rows = tuple(draw(st.lists(st.tuples(*row), min_size=1, max_size=3)))
    return Table(draw(TEXTS), draw(TEXTS), tuple(columns), rows, wrap=draw(st.sampled_from([None, 48])))


def is_left_out(text, heading):
    """Return whether the caption says that a column is left out."""
    listed = " ".join(text.split()).partition("Left out to fit: ")[2]
    return f", {heading}, " in f", {listed.removesuffix('.')}, "


@settings(max_examples=100, deadline=None)
@given(tables(), st.one_of(st.none(), st.integers(60, 220)))
def test_numbers_headings_and_notes_are_whole_at_any_width(table, width):
    text = table_text(table, width)
    lines = text.splitlines()
    assert width is None or max(map(len, lines)) <= width
    joined = " ".join(text.split())
    assert table.caption in joined
    assert " ".join(table.title.split()) in joined
    in_paragraphs = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" not in text
    for index, column in enumerate(table.columns):
        if is_left_out(text, column.heading):
            assert column.optional
            continue
        empty = all(row[index] is None for row in table.rows)
        for word in column.heading.split() if not in_paragraphs or not (empty or column.names_row) else ():
            assert word in text
        for row in table.rows:
            cell = row[index]
            if column.numeric and cell is not None:
                number, _, bounds = cell_text(cell).partition(" ")
                assert any(number in line for line in lines)
                assert any(bounds in line for line in lines)
            elif not column.numeric:
                for word in re.findall(r"[^\s/(),]+", cell_text(cell)):
                    assert word in text


def test_a_table_that_fits_has_intervals_next_to_their_means():
    table = Table("", "", (Column("x"), Column("value", numeric=True)), (("a", Interval(0.5, 0.25, 0.75, 5, "m")),))
    assert "0.5000 [0.2500, 0.7500]" in table_text(table, 80)
    assert "0.5000 [0.2500, 0.7500]" in table_text(table, None)


def test_intervals_go_below_their_means_before_a_column_is_left_out():
    number = Interval(0.5, 0.25, 0.75, 5, "m")
    columns = (Column("rule"), *(Column(f"value {index}", numeric=True, optional=True) for index in range(3)))
    table = Table("", "", columns, (("a", number, number, number),))
    narrow = table_text(table, 60)
    assert "Left out" not in narrow
    assert narrow.count("[0.2500, 0.7500]") == 3
    assert "0.5000 [" not in narrow


def test_optional_columns_are_left_out_from_the_right_and_named():
    number = Interval(0.5, 0.25, 0.75, 5, "m")
    columns = tuple(Column(f"value{index}", numeric=True, optional=index > 0) for index in range(6))
    text = table_text(Table("", "A caption.", columns, ((number,) * 6,)), 60)
    assert text.endswith("A caption. Left out to fit: value3, value4, value5.\n")
    assert "value2" in text.split("A caption")[0]


def test_rows_become_paragraphs_if_nothing_can_be_left_out():
    number = Interval(0.5, 0.25, 0.75, 5, "m")
    columns = (Column("rule", names_row=True), Column("setting", names_row=True))
    columns += tuple(Column(f"value {index}", numeric=True) for index in range(5))
    text = table_text(Table("Title", "Caption.", columns, (("grlu", "k = 0.5", *(number,) * 5),)), 60)
    assert text.splitlines()[:4] == [
        "Title",
        "",
        " grlu · k = 0.5",
        "   value 0: 0.5000 [0.2500, 0.7500]",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("perturbations = 16, k = 0.5", ["perturbations = 16,", "k = 0.5"]),
        ("plastic/SimpleIntegration-v0", ["plastic/", "SimpleIntegration-v0"]),
        ("", [""]),
        ("abcdefghijklmnopqrstuvwxyz", ["abcdefghijklmnopqrst", "uvwxyz"]),
    ],
)
def test_lines_break_where_a_reader_expects_it(text, lines):
    assert wrapped(text, 20) == lines


@given(st.text(max_size=80), st.integers(4, 40))
def test_broken_lines_lose_no_character(text, width):
    assert "".join("".join(wrapped(text, width)).split()) == "".join(text.split())


def test_a_caption_has_short_lines():
    text = table_text(Table("", "word " * 100, (Column("a"),), (("x",),)), 200)
    assert max(map(len, text.splitlines())) <= CAPTION_WIDTH


def test_a_name_is_not_read_as_markup():
    table = Table("t", "c", (Column("a"),), (("[red]x[/red]",), ("[/]",)))
    text = table_text(table, 80)
    assert "[red]x[/red]" in text
    assert "[/]" in text


def test_an_interval_of_two_seeds_has_no_brackets():
    table = Table("t", "c", (Column("x", numeric=True),), ((mean_interval([0.5, 0.7]),),))
    assert "0.6000" in table_text(table, 80)
    assert "[" not in table_text(table, 80)
    assert "[" not in markdown(table)


def test_html_shows_text_as_text():
    table = Table("<t>", "a & b", (Column("<x>"), Column("n", numeric=True)), (("<script>", Number("1.0", "± 2")),))
    text = html(table)
    for part in ("&lt;t&gt;", "a &amp; b", "&lt;x&gt;", "&lt;script&gt;", '<td style="text-align: right">1.0 ± 2</td>'):
        assert part in text


def test_optional_columns_are_left_out_before_a_setting_has_a_third_line():
    number = Interval(0.5, 0.25, 0.75, 5, "m")
    setting = "hidden = 64, epochs = 20, perturbations = 16, k = 0.5"
    optional = tuple(Column(f"value {index}", numeric=True, optional=True) for index in range(3))

    def shown(lines):
        columns = (Column("setting", lines=lines), Column("accuracy", numeric=True), *optional)
        return table_text(Table("", "", columns, ((setting, number, number, number, number),)), 90)

    assert "Left out" not in shown(None)
    assert "hidden = 64, epochs = 20," not in shown(None)
    assert shown(2).endswith("Left out to fit: value 2.\n")
    assert "hidden = 64, epochs = 20," in shown(2)


def test_the_note_on_a_column_is_left_out_with_it():
    number = Interval(0.5, 0.25, 0.75, 5, "m")
    columns = tuple(
        Column(f"value{index}", numeric=True, optional=index > 0, note=f"Value {index} is a time.")
        for index in range(6)
    )
    notes = " ".join(column.note for column in columns)
    text = table_text(Table("", f"One. {notes} Two.", columns, ((number,) * 6,)), 60)
    caption = " ".join(text[text.index("One.") :].split())
    assert caption == (
        "One. Value 0 is a time. Value 1 is a time. Value 2 is a time. Two. Left out to fit: value3, value4, value5."
    )
    assert notes in table_text(Table("", f"One. {notes} Two.", columns, ((number,) * 6,)), None).replace("\n", " ")


def test_an_interval_after_a_long_heading_is_in_a_line_of_its_own():
    far = Interval(-100000.0, -100000.1, -99999.8, n=5, method="m")
    columns = [Column(heading, numeric=index > 0) for index, heading in enumerate(["a", "b" * 31, *"cdefghijkl"])]
    text = table_text(Table("t", "c", tuple(columns), (("a", far, *([1.0] * 10)),)), 46)
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" not in text
    assert any(cell_text(far).partition(" ")[2] in line for line in text.splitlines())
