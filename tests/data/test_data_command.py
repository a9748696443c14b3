import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data.tiny_sets import write_idx, write_mnist
from plastic_cli.commands.data import Options, list_datasets
from plastic_cli.data.catalog import DATASETS, dataset_names
from plastic_cli.data.overview import data_rows
from plastic_cli.errors import UserError
from plastic_cli.testing import plastic


def _row(name, folder):
    return next(row for row in data_rows(folder) if row.name == name)


def test_a_row_for_every_set(tmp_path):
    rows = data_rows(tmp_path)
    assert [row.name for row in rows] == dataset_names()
    assert [row.name for row in rows if row.here] == ["digits"]
    for row in rows:
        info = DATASETS[row.name]
        assert (row.train_images, row.test_images, row.disk_bytes) == (
            info.train_images,
            info.test_images,
            info.disk_bytes,
        )
        assert row.missing == info.files
        assert row.license


def test_the_row_of_a_present_set(mnist_folder):
    row = _row("mnist", mnist_folder)
    assert row.here
    assert row.where == str(mnist_folder / "MNIST" / "raw")
    assert (row.train_images, row.test_images) == (40, 20)
    assert row.disk_bytes == 60 * 785 + 2 * 24
    assert row.note.startswith("not the official set: 40 training and 20 test images here")


def test_packed_files_count(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", suffix=".gz")
    assert _row("mnist", tmp_path).here
    assert _row("mnist", tmp_path).train_images == 40


def test_the_row_of_an_incomplete_set(mnist_folder, capsys):
    (mnist_folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    row = _row("mnist", mnist_folder)
    assert not row.here
    assert row.missing == ("t10k-labels-idx1-ubyte",)
    list_datasets(Options(data=mnist_folder))
    assert "3 of 4 files" in capsys.readouterr().out


def test_damage_does_not_stop_the_list(mnist_folder):
    path = mnist_folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(b"rubbish")
    assert str(path) in _row("mnist", mnist_folder).note


def test_a_set_that_is_not_the_official_one_has_a_note(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        prefix = f"emnist-balanced-{split}"
        write_idx(tmp_path / "EMNIST" / "raw" / f"{prefix}-images-idx3-ubyte", np.zeros((count, 28, 28), np.uint8))
        write_idx(tmp_path / "EMNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", np.zeros(count, np.uint8))
    assert "not the official Balanced split" in _row("emnist", tmp_path).note


def test_table(mnist_folder, capsys):
    list_datasets(Options(data=mnist_folder))
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = [line.strip() for line in captured.out.splitlines() if line.strip()]
    assert lines[0].split()[:4] == ["set", "here", "training", "test"]
    assert next(line for line in lines if line.startswith("mnist ")).split()[:4] == ["mnist", "yes", "40", "20"]
    assert next(line for line in lines if line.startswith("emnist ")).split()[1] == "no"
    assert f"folder: {mnist_folder}" in captured.out
    assert "download 561.8 MB" in captured.out


def test_no_line_is_wider_than_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    list_datasets(Options(data=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert any("55 MB" in line for line in lines)
    # An address and the path of the folder stay whole, so that they can be opened.
    wide = [line for line in lines if len(line) > 80 and "://" not in line]
    assert [line for line in wide if line != f"folder: {tmp_path}"] == []
    assert all(any(info.source in line for line in lines) for info in DATASETS.values())


def test_the_name_of_a_data_set_is_not_a_command():
    outcome = plastic("data", "mnist")
    assert outcome.code == 2
    assert "plastic data fetch mnist" in outcome.err
    assert "plastic data fetch" not in plastic("data", "nonsense").err


def test_json(mnist_folder, capsys):
    list_datasets(Options(data=mnist_folder, format="json"))
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == dataset_names()
    assert rows[1]["here"] is True
    assert rows[1]["image_shape"] == [1, 28, 28]
    assert rows[1]["mean"] == [0.1307]


def test_csv(mnist_folder, capsys):
    list_datasets(Options(data=mnist_folder, format="csv"))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows] == dataset_names()
    assert rows[1]["train_images"] == "40"
    assert rows[-1]["image_shape"] == "3x32x32"
    assert rows[-1]["mean"] == "0.4914 0.4822 0.4465"


def test_unknown_format(tmp_path):
    with pytest.raises(UserError, match=r"--format jsn: .* Did you mean 'json'\?"):
        Options.from_values({"data": tmp_path, "format": "jsn"})


@pytest.mark.parametrize("output_format", ["table", "json", "csv"])
def test_listing_does_not_import_torch(mnist_folder, output_format):
    code = (
        "import sys; from plastic_cli.commands.data import Options, list_datasets\n"
        f"list_datasets(Options(data={str(mnist_folder)!r}, format={output_format!r}))\n"
        "assert not {'torch', 'pandas', 'sklearn', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ)
