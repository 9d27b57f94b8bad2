"""What is printed for people stays aligned, short, and harmless."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.text import Text

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import brief
from reactive_worker.cli.styled import Styled, status
from reactive_worker.cli.text import age, age_of, clock, duration, number, plain, short


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_tables_align_coloured_and_wide_cells(terminal: Terminal) -> None:
    Console(out=terminal).table(("a", "b", "c"), [(status("failed"), "漢字", "x"), ("longer cell", "z", "y")])
    rows = [Text.from_ansi(line).plain.rstrip() for line in terminal.getvalue().splitlines()]
    assert {cell_len(line) for line in rows} == {len("longer cell  漢字  x") + 2}
    assert "\x1b[31mfailed" in terminal.getvalue()


def test_a_table_fits_the_terminal_and_leaves_out_what_matters_least(terminal: Terminal) -> None:
    row = ("0b8e2a52", "x" * 24, "input_required", "100", "3", "23 h 59 min", "word " * 40)
    heads = ("id", "agent type", "status", "prio", "runs", "age", "prompt")
    Console(out=terminal).table(heads, [row], optional=("runs", "prio"))
    lines = [Text.from_ansi(line).plain for line in terminal.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= 80
    assert "runs" not in lines[0]
    assert lines[1].rstrip().endswith("…")
    assert "input_required" in lines[1]


def test_nothing_is_cut_in_a_pipe() -> None:
    out = io.StringIO()
    Console(out=out).table(("a", "b"), [("x" * 300, "y" * 300)], optional=("a",))
    assert out.getvalue().splitlines()[1] == f"{'x' * 300}  {'y' * 300}"


def test_cells_are_no_markup_and_move_no_cursor() -> None:
    out = io.StringIO()
    Console(out=out).table(("a", "b"), [("[/x]", "[red]b[/red] :smile: \x1b[2J")])
    assert out.getvalue().splitlines()[1] == "[/x]  [red]b[/red] :smile: \\u001b[2J"


def test_no_colours_in_a_pipe_nor_with_no_color(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    Console(out=out).say(Styled("red", "x"), "y")
    assert out.getvalue() == "xy\n"
    Console(out=terminal).say(Styled("red", "x"), "y")
    assert terminal.getvalue() == "\x1b[31mx\x1b[0my\n"
    monkeypatch.setenv("NO_COLOR", "1")
    Console(out=terminal).say(Styled("red", "x"))
    assert terminal.getvalue().endswith("\nx\n")


def test_what_is_said_obeys_nobody(terminal: Terminal) -> None:
    console = Console(out=terminal, err=terminal)
    for write in (console.say, console.note, console.error, console.stream):
        write("a\x1b]52;c;aGk=\x07b\u202ec")
    assert "\x1b]" not in terminal.getvalue()
    assert "\u202e" not in terminal.getvalue()
    assert terminal.getvalue().count("\\u001b]52;") == 4


def test_json_output_is_json_lines_only() -> None:
    out = io.StringIO()
    console = Console(json_output=True, out=out)
    console.say("for people")
    console.table(("a",), [("b",)])
    console.emit({"at": datetime(2030, 1, 1, tzinfo=UTC), "text": "漢\u202e"})
    assert "\u202e" not in out.getvalue()
    assert json.loads(out.getvalue()) == {"at": "2030-01-01T00:00:00+00:00", "text": "漢\u202e"}


def test_json_of_a_row_that_is_nested_too_deep_still_tells_the_rest() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    out = io.StringIO()
    Console(json_output=True, out=out).emit({"id": "1", "input_data": deep})
    assert json.loads(out.getvalue()) == {"id": "1", "input_data": "(cannot be shown: RecursionError)"}


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
        ("\x1b[31mred\x1b[0m", 40, "\\u001b[31mred\\u001b[0m"),
        ("[/x]", 40, "[/x]"),
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
        (float("inf"), "ages"),
        (float("-inf"), "0 ms"),
        (float("nan"), "-"),
        ("Infinity", "ages"),
        (10**400, "ages"),
        ([3], "-"),
    ],
)
def test_durations(seconds: object, expected: str) -> None:
    assert duration(seconds) == expected


def test_times() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert age(now - timedelta(seconds=5), now) == "5.0 s"
    assert age(None) == "-"
    assert age_of("-infinity", now) == "ages"
    assert age_of({"no": "time"}, now) == "-"
    assert clock(None) == ""
    assert clock(datetime.max.replace(tzinfo=UTC) - timedelta(microseconds=1))
    assert clock(datetime.min.replace(tzinfo=UTC))


def test_values_of_any_kind() -> None:
    odd: list[object] = ["1", [], None, 10**400, float("inf"), True]
    assert [number(value) for value in odd] == [0] * len(odd)
    assert number(7) == 7
    assert plain(10**5000).startswith("(a number")


def test_ids_are_as_short_as_tells_them_apart() -> None:
    ids = [f"0b8e2a52-2f0e-4fd6-8d5f-57a5d6a32b0{n}" for n in range(3)]
    shortened = brief(ids)
    assert len(set(shortened.values())) == 3
    assert brief(ids[:1])[ids[0]] == "0b8e2a52"
