"""What is printed for people stays aligned, short, and harmless."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from reactive_worker.cli.console import Console, age, duration, short, width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_align_coloured_and_wide_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    console = Console(out=out)
    console.table(("a", "b", "c"), [(console.status("failed"), "漢字", "x"), ("longer cell", "z", "y")])
    rows = list(out.getvalue().splitlines())
    assert {width(line) for line in rows} == {len("longer cell  漢字  x") + 2}
    assert "\x1b[31mfailed\x1b[0m" in rows[1]


def test_no_colours_in_a_pipe_nor_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Console(out=io.StringIO()).style("red", "x") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Console(out=Terminal()).style("red", "x") == "x"


def test_json_output_is_json_lines_only() -> None:
    out = io.StringIO()
    console = Console(json_output=True, out=out)
    console.say("for people")
    console.table(("a",), [("b",)])
    console.emit({"at": datetime(2030, 1, 1, tzinfo=UTC), "text": "漢"})
    assert json.loads(out.getvalue()) == {"at": "2030-01-01T00:00:00+00:00", "text": "漢"}


def test_an_error_is_one_line() -> None:
    err = io.StringIO()
    Console(err=err).error("one\ntwo\r\n  three")
    assert err.getvalue() == "reactive-worker: error: one two three\n"


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("longer than ten", 10, "longer th…"),
        ("two\nlines\tand tabs", 40, "two lines and tabs"),
        ("漢字漢字漢字", 7, "漢字漢…"),
        ("\x1b[31mred\x1b[0m", 40, "[31mred [0m"),
    ],
)
def test_texts_of_tasks_are_cut_and_cannot_touch_the_terminal(text: str, length: int, expected: str) -> None:
    assert short(text, length) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0.0123, "12 ms"),
        (-1, "0 ms"),
        (2.345, "2.3 s"),
        (42, "42 s"),
        (59.7, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (125, "2 min 5 s"),
        (3 * 3600 + 240, "3 h 4 min"),
        (2 * 86_400 + 3600, "2 d 1 h"),
    ],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_ages() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert age(now - timedelta(seconds=5), now) == "5.0 s"
    assert age(None) == "-"
