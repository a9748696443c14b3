"""What a command shows on stderr while it works."""

import io
import sys
import time

import pytest

from plastic_cli.runs.console import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("quiet", "expected"), [(False, "compiling\n"), (True, "")])
def test_work_is_announced_by_one_line_where_there_is_no_terminal(capsys, quiet, expected):
    with Console(quiet=quiet).working("compiling"):
        assert capsys.readouterr().err == expected
    assert capsys.readouterr().err == ""


def test_work_has_a_spinner_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Console().working("compiling"):
        deadline = time.monotonic() + 10
        while "compiling" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "compiling" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back and the line is erased


def test_work_within_a_progress_bar_is_a_line_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console()
    with console.progress("epoch", 2, 0), console.working("compiling"):
        assert "compiling" in terminal.getvalue()
