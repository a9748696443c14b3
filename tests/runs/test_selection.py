import pytest

from plastic_cli.errors import UserError
from plastic_cli.runs.selection import Selection, find_rows, matches, select


def row(run, name=None, rule="grlu", dataset="digits", status="completed", seed=0, **config):
    return {
        "run": run, "name": name, "rule": rule, "dataset": dataset, "status": status, "seed": seed, "version": "0.1.0",
        "config": config, "summary": {"test/accuracy": 0.5 + int(run[7]) / 10}, "seconds": 10.0 * seed,
    }  # fmt: skip


ROWS = [
    row("20261101-aaaa", perturbations=1, k=None, hidden=[256], skip=False),
    row("20261102-abcd", "best", perturbations=16, k=0.5, hidden=[256, 128], skip=True),
    row("20261103-bbbb", "x-seed0", rule="eglp", dataset="mnist", threshold=0.1),
    row("20261104-cccc", "x-seed1", rule="eglp", dataset="mnist", threshold=0.1, seed=1, status="failed"),
]


def chosen(**fields):
    return [each["run"][-4:] for each in select(ROWS, Selection(**fields))]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["aaaa", "abcd", "bbbb", "cccc"]),
        ({"rules": ("eglp",)}, ["bbbb", "cccc"]),
        ({"rules": ("eglp", "grlu")}, ["aaaa", "abcd", "bbbb", "cccc"]),
        ({"dataset": "mnist", "status": "completed"}, ["bbbb"]),
        ({"runs": ("best", "20261101")}, ["abcd", "aaaa"]),
        ({"runs": ("x",)}, ["bbbb", "cccc"]),
        ({"runs": ("best", "20261102-abcd")}, ["abcd"]),
        ({"where": ("perturbations=16",)}, ["abcd"]),
        ({"where": ("perturbations=1,16",)}, ["aaaa", "abcd"]),
        ({"where": ("perturbations!=16",)}, ["aaaa"]),
        ({"where": ("hidden=256,128",)}, ["abcd"]),
        ({"where": ("k=none",)}, ["aaaa"]),
        ({"where": ("skip = YES", "k=.5")}, ["abcd"]),
        ({"where": ("seed=1",)}, ["cccc"]),
        ({"rules": ("eglp",), "where": ("seed!=1",)}, ["bbbb"]),
        ({"where": ("perturbations>1",)}, ["abcd"]),
        ({"where": ("perturbations >= 1",)}, ["aaaa", "abcd"]),
        ({"where": ("test/accuracy>0.7",)}, ["bbbb", "cccc"]),
        ({"where": ("test/accuracy<=60%",)}, ["aaaa"]),
        ({"where": ("seconds<5", "test/accuracy>60%")}, ["abcd", "bbbb"]),
        ({"where": ("skip>0",)}, []),
        ({"where": ("time>5",)}, ["cccc"]),
        ({"where": ("data-set=digits", "id=20261101-aaaa")}, ["aaaa"]),
        ({"runs": ("bbbb", "aaaa")}, ["bbbb", "aaaa"]),
    ],
)
def test_each_field_of_a_selection_narrows_it(fields, expected):
    assert chosen(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rules": ("elgp",)}, "--rule elgp: no run has it. Did you mean 'eglp'? There are: eglp, grlu."),
        ({"dataset": "cifar10"}, "--dataset cifar10: no run has it. There are: digits, mnist."),
        (
            {"where": ("perturbation=16",)},
            "option or the result 'perturbation'. Did you mean 'perturbations'?",
        ),
        ({"where": ("perturbations=15",)}, "no run has it. Values of perturbations here: 1, 16."),
        (
            {"where": ("test/acuracy>0.9",)},
            "option or the result 'test/acuracy'. Did you mean 'test/accuracy'?",
        ),
        ({"where": ("zzzz=1",)}, "no run has the option or the result 'zzzz'. There are: rule, dataset,"),
        ({"where": ("zzzz=1",)}, "threshold. Results: test/accuracy."),
        ({"where": ("test/accuracy > 90",)}, "test/accuracy is stored as a share between 0 and 1. Write 0.9, or 90%"),
        ({"runs": ("aaa",)}, "there is no run 'aaa'."),
        ({"where": ("seed>high",)}, "--where seed>high: 'high' is not a number."),
        ({"where": ("perturbations",)}, "write NAME=VALUE, or !=, <, <=, >, >= in place of ="),
        ({"runs": ("bset",)}, "there is no run 'bset'. Did you mean 'best'?"),
        ({"runs": ("2026110",)}, "'2026110' matches 4 runs: 20261101-aaaa, 20261102-abcd, "),
        ({"runs": ("",)}, "there is no run ''."),
    ],
)
def test_what_no_run_has_is_an_error_that_says_what_there_is(fields, words):
    with pytest.raises(UserError) as error:
        chosen(**fields)
    assert words in str(error.value)


def test_a_name_precedes_the_beginning_of_an_id():
    rows = [row("20261101-aaaa"), row("20261102-bbbb", name="20261101")]
    assert [each["run"] for each in find_rows(rows, "20261101")] == ["20261102-bbbb"]


def test_a_name_precedes_the_end_of_an_id():
    rows = [row("20261101-aaaa"), row("20261102-bbbb", name="aaaa")]
    assert [each["run"] for each in find_rows(rows, "aaaa")] == ["20261102-bbbb"]


def test_the_end_of_two_ids_is_refused():
    with pytest.raises(UserError, match="'aaaa' matches 2 runs: 20261101-aaaa, 20261102-aaaa"):
        find_rows([row("20261101-aaaa"), row("20261102-aaaa")], "aaaa")


def test_no_run_at_all_is_an_empty_selection():
    assert select([], Selection(rules=("grlu",), where=("k=1",))) == []


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (0.001, "1e-3", True),
        (16, "16.0", True),
        (True, "1", False),
        (1, "yes", False),
        ([256], "256", True),
        ([256, 128], "128,256", False),
        ("adam", "ADAM", True),
        ("adam", "sgd,adam", True),
        (None, "0", False),
    ],
)
def test_a_value_is_compared_as_it_is_typed(value, text, expected):
    assert matches(value, text) is expected
