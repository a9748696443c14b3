"""`plastic plot` and `plastic.plot`: figures of runs that were really trained."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

import plastic_cli as plastic
from plastic_cli.errors import UserError
from plastic_cli.testing import plastic as command


@pytest.fixture
def two_settings(train):
    return [train("--seed", seed, "--batch-size", size, epochs=2) for size in (8, 16) for seed in (0, 1)]


def texts(path):
    return " ".join(element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("}desc"))


def test_without_output_the_figure_is_named_after_what_it_shows(two_settings):
    done = command("plot", "--by", "batch-size")
    assert (done.code, done.out) == (0, "test-accuracy-by-batch-size.png\n"), done.err
    with Image.open("test-accuracy-by-batch-size.png") as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize("name", ["own.svg", "deep/own.pdf", "OWN.PNG"])
def test_the_end_of_the_name_is_the_format(two_settings, name):
    done = command("plot", "--output", name, "--width", 5, "--height", 3)
    assert (done.code, done.out) == (0, f"{name}\n"), done.err
    begins = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    assert Path(name).read_bytes().startswith(begins[Path(name).suffix.lower()])


def test_the_size_is_in_inches(two_settings):
    command("plot", "--output", "a.png", "--width", 5, "--height", 3)
    with Image.open("a.png") as picture:
        assert picture.size == (750, 450)


def test_runs_are_chosen_by_name_and_by_condition(two_settings):
    one = command("plot", two_settings[0].name, "--output", "one.svg")
    assert one.code == 0, one.err
    assert "colors: training, test" not in texts("one.svg")
    done = command("plot", "--where", "batch-size=16", "--metric", "accuracy", "--output", "two.svg")
    assert done.code == 0, done.err
    assert "colors: training, test" in texts("two.svg")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--final", "--smooth", "3"], "--smooth does nothing with --final. Leave it out."),
        (["--output", "a.gif"], "the name must end with .png, .svg or .pdf"),
        (["--y-range", "2,1"], "the first number must be smaller"),
        (["--rule", "grlu"], "--rule grlu: no run has it"),
        (["--where", "batch-size=9"], "Values of batch-size here: 8, 16"),
        (["--status", "failed"], "no failed run in"),
        (["--metric", "test/acuracy"], "Did you mean 'test/accuracy'?"),
        (["nosuch"], "there is no run 'nosuch'"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_of_one_line(two_settings, options, words):
    done = command("plot", *options)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not list(Path().glob("*.png"))


def test_a_folder_in_place_of_the_file_is_an_error(two_settings):
    Path("a.png").mkdir()
    done = command("plot", "--output", "a.png")
    assert (done.code, done.err) == (1, "error: cannot write a.png: it is a folder. Choose another --output.\n")


def test_from_python_runs_may_be_a_store_a_folder_or_runs(two_settings, runs_folder):
    store = plastic.RunStore(runs_folder)
    runs = [store.run(folder.name) for folder in two_settings]
    figures = [plastic.plot(each, by="batch_size") for each in (store, runs_folder, runs, [run.id for run in runs])]
    assert all(figure.data.equals(figures[0].data) for figure in figures)
    assert len(figures[0].data["label"].cat.categories) == 2
    assert set(plastic.plot(runs[0], "test/accuracy").data["n"]) == {1}


def test_options_from_python_are_those_of_the_command_line(two_settings, runs_folder):
    figure = plastic.plot(runs_folder, title="Mine", y_range=(0, 50), log="x", width=4)
    assert figure.labels.title == "Mine"
    assert figure.layers[0]._data["mean"].tolist() == [0, 0.5]
    with pytest.raises(ValueError, match=r"there is no option 'log_x'.* Did you mean 'log'"):
        plastic.plot(runs_folder, log_x=True)
    with pytest.raises(UserError, match="there is no run 'nosuch'"):
        plastic.plot("nosuch")


def test_a_run_draws_its_splits(two_settings, runs_folder):
    run = plastic.RunStore(runs_folder).run(two_settings[0].name)
    figure = run.plot(y_range=(0, 1), title="Mine")
    assert list(figure.data["label"].cat.categories) == ["training", "test"]
    assert figure.labels.title == "Mine"
    assert figure.labels.x == "epoch"
    with pytest.raises(ValueError, match=r"there is no option 'y_rang'.* Did you mean 'y_range'"):
        run.plot(y_rang=(0, 1))


def test_a_folder_without_runs_says_how_to_make_one(runs_folder):
    done = command("plot")
    assert (done.code, done.err) == (
        2, f"error: there is no run yet in {runs_folder}. Create one with: plastic train RULE\n"
    )  # fmt: skip
