"""What the command line prints: tables and colours for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from reactive_worker.access.redaction import redact

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}

_STYLING = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = re.compile(r"-?[\d,]+(/\d+)?")

#: How a status looks in every list.
STATUS_STYLE = {
    "pending": "yellow",
    "in_progress": "blue",
    "input_required": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
}


class Console:
    """Standard output and standard error of one command.

    Parameters
    ----------
    json_output:
        True with `--json`: `emit` writes, `say` and `table` are silent.
    """

    def __init__(
        self, *, json_output: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.json = json_output
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    @property
    def is_terminal(self) -> bool:
        """True when a person looks at standard output."""
        return self._out.isatty() and not self.json

    def emit(self, value: Any) -> None:
        """One line of JSON, with `--json` only."""
        if self.json:
            self._write(json.dumps(value, default=_plain, ensure_ascii=False))

    def say(self, line: str = "") -> None:
        """One line for people."""
        if not self.json:
            self._write(line)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns as wide as they need to be; the last one is cut at the terminal's edge."""
        if self.json:
            return
        cells = [[*row] for row in rows]
        widths = [width(head) for head in heads]
        for row in cells:
            for index, cell in enumerate(row):
                widths[index] = max(widths[index], width(cell))
        numeric = {
            index
            for index in range(len(heads))
            if cells and all(_NUMBER.fullmatch(_STYLING.sub("", row[index])) for row in cells)
        }
        self._write(self.style("dim", _line(heads, widths, numeric)))
        for row in cells:
            self._write(_line(row, widths, numeric))

    def error(self, message: str) -> None:
        """One line on standard error, whatever the message holds."""
        line = redact(" ".join(message.split()))
        self._err.write(f"reactive-worker: {self._styled(self._err, 'red', 'error:')} {line}\n")
        self._err.flush()

    def note(self, message: str) -> None:
        """A remark for people on standard error, so that output stays clean."""
        self._err.write(f"{message}\n")
        self._err.flush()

    def style(self, style: str, text: str) -> str:
        """`text` in a colour when a terminal shows it; unchanged otherwise."""
        return self._styled(self._out, style, text)

    def status(self, status: str) -> str:
        """A task's status in its colour."""
        return self.style(STATUS_STYLE.get(status, "bold"), status)

    def _styled(self, stream: TextIO, style: str, text: str) -> str:
        if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def _write(self, line: str) -> None:
        self._out.write(f"{line}\n")
        # A pipe's reader wants each line now, and so does whoever waits for a `dev --json`.
        self._out.flush()


def width(text: str) -> int:
    """Columns `text` takes in a terminal: colours take none, wide characters two."""
    count, index = 0, 0
    while index < len(text):
        if text[index] == "\x1b":
            index = text.index("m", index) + 1
            continue
        if not unicodedata.combining(text[index]):
            count += 2 if unicodedata.east_asian_width(text[index]) in "WF" else 1
        index += 1
    return count


def short(text: object, length: int) -> str:
    """One line of at most `length` columns."""
    line = " ".join(_printable(str(text)).split())
    if width(line) <= length:
        return line
    kept = ""
    for character in line:
        if width(kept + character) > length - 1:
            break
        kept += character
    return f"{kept}…"


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, for example ``42 s``; ``-`` for never."""
    return "-" if moment is None else duration(((now or datetime.now(UTC)) - moment).total_seconds())


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "-"
    value = max(0.0, seconds)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 59.5:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    value = round(value)  # before it is divided: 119.6 s are two minutes, not one and 60 s
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    if value < 86_400:
        return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"
    return f"{value // 86_400:.0f} d {value % 86_400 // 3600:.0f} h"


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Container[int]) -> str:
    """Cells padded to `widths`; numbers stand to the right."""
    padded: list[str] = []
    for index, (cell, wide) in enumerate(zip(cells, widths, strict=True)):
        room = " " * (wide - width(cell))
        padded.append(room + cell if index in numeric else cell + room)
    return "  ".join(padded).rstrip()


def _printable(text: str) -> str:
    # What a task says must not move the cursor or recolour the terminal of whoever lists it.
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
