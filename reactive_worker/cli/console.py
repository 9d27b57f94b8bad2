"""What the command line prints: tables and colours for people, JSON for scripts.

Whatever is printed passes through `safe_text` here, in one place: no command can forget it. Colours are put
on afterwards, by `Styled`, never by text.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO, cast

from reactive_worker.access.redaction import redact
from reactive_worker.access.safe_text import safe_json, safe_text
from reactive_worker.cli.styled import Styled

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

#: Columns of what is no terminal: a script reads it, and nothing is cut off.
_ENDLESS = 100_000


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

    def columns(self, otherwise: int) -> int:
        """How wide the terminal is; `otherwise` where there is none."""
        return shutil.get_terminal_size((80, 24)).columns if self.is_terminal else otherwise

    def emit(self, value: Any) -> None:
        """One line of JSON, with `--json` only."""
        if self.json:
            self._write(_json(value))

    def say(self, *parts: str | Styled) -> None:
        """One line for people, or several where the text has them."""
        if not self.json:
            self._write("".join(self._shown(self._out, part) for part in parts))

    def stream(self, text: str) -> None:
        """A piece of text as it comes, without a line's end; for people only."""
        if not self.json:
            self._out.write(safe_text(text, lines=True))
            self._out.flush()

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str | Styled]],
        *,
        optional: Sequence[str] = (),
    ) -> None:
        """Columns as wide as they need to be; in a terminal the last one is cut at its edge.

        Parameters
        ----------
        heads:
            Names of the columns.
        rows:
            A cell for each.
        optional:
            Columns that are left out, in this order, until the rest fits into the terminal.
        """
        if self.json:
            return
        from reactive_worker.cli import tables

        colour = "standard" if self._is_coloured(self._out) else None
        for line in tables.lines(
            heads, [[*row] for row in rows], width=self.columns(_ENDLESS), optional=optional, colour=colour
        ):
            self._write(line)

    def error(self, message: str) -> None:
        """One line on standard error, whatever the message holds."""
        line = safe_text(redact(" ".join(message.split())))
        head = self._shown(self._err, Styled("red", "error:"))
        self._err.write(f"reactive-worker: {head} {line}\n")
        self._err.flush()

    def note(self, *parts: str | Styled) -> None:
        """A remark for people on standard error, so that output stays clean."""
        self._err.write("".join(self._shown(self._err, part) for part in parts) + "\n")
        self._err.flush()

    def _shown(self, stream: TextIO, part: str | Styled) -> str:
        if isinstance(part, str):
            return safe_text(part, lines=True)
        text = safe_text(part.text, lines=True)
        if not text or not part.style or not self._is_coloured(stream):
            return text
        return f"\x1b[{_STYLES[part.style]}m{text}\x1b[0m"

    def _is_coloured(self, stream: TextIO) -> bool:
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def _write(self, line: str) -> None:
        self._out.write(f"{line}\n")
        # A pipe's reader wants each line now, and so does whoever waits for a `dev --json`.
        self._out.flush()


def _json(value: Any) -> str:
    try:
        return safe_json(value, default=_plain)
    except (RecursionError, ValueError):
        if not isinstance(value, dict):
            raise
        # A row may be nested as deep as it could just be read; the rest of it is told all the same.
        row = cast("dict[str, Any]", value)
        return safe_json({name: _readable(one) for name, one in row.items()}, default=_plain)


def _readable(value: Any) -> Any:
    try:
        safe_json(value, default=_plain)
    except (RecursionError, ValueError) as error:
        return f"(cannot be shown: {type(error).__name__})"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
