"""Text made by people, models and projects, made fit to be shown: on a terminal, in a log, in a table.

An escape sequence in a prompt recolours the terminal of whoever lists it, moves its cursor, or writes to its
clipboard; a line separator forges a log line; a bidirectional override shows ``exe.txt`` where ``txt.exe``
stands. So whatever a row says passes through here before a person sees it. What cannot be shown is written as
an escape, so that nothing is hidden either.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any

#: Controls; formats (bidirectional overrides and isolates, zero-width characters, tags); line and paragraph
#: separators; halves of characters, which no terminal's encoding can write.
_UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})

#: Blanks that would end a line or move the cursor: in one line each is a space.
_BREAKS = frozenset("\t\n\v\f\r\x85\u2028\u2029")

#: Zero-width joiners shape Persian, Hindi and emoji. They are left out: a text full of their escapes is
#: unreadable, one without them reads nearly as before.
_JOINERS = frozenset("\u200c\u200d")


def safe_text(value: object, *, lines: bool = False) -> str:
    """What `value` says, without anything that a terminal or the reader of a log would obey.

    Controls (category Cc), formats (Cf, bidirectional marks among them), U+2028, U+2029 and lone surrogates
    become escapes like ``\\u001b``; zero-width joiners are left out.

    Parameters
    ----------
    value:
        Anything; ``str(value)`` is shown.
    lines:
        True keeps line feeds and tabs, for texts that may have many lines (a traceback). Otherwise the
        result is one line: every line break and tab is a space.

    Returns
    -------
    str
        Printable text. It may still hold markup of whatever shows it (rich): escape that there.

    Example
    -------
    >>> safe_text("red \\x1b[31m text\\nnext")
    'red \\\\u001b[31m text next'
    """
    text = str(value)
    # Nearly every text: answered in C. It also says no to blanks like U+00A0, which stay.
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _shown(character, lines=lines) for character in text
    )


def safe_json(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """`value` as one line of JSON, with the same characters escaped: it means what it meant.

    Parameters
    ----------
    value:
        What JSON can hold.
    default:
        Makes the rest something JSON can hold, as in `json.dumps`.

    Returns
    -------
    str
        JSON text in which letters of every script stand as they are.

    Raises
    ------
    TypeError, ValueError
        It cannot be written as JSON.

    Example
    -------
    >>> safe_json({"name": "\\u202eexe.txt"})
    '{"name": "\\\\u202eexe.txt"}'
    """
    text = json.dumps(value, default=default, ensure_ascii=False)
    if text.isprintable():
        return text
    # Only inside of strings can these stand, where an escape is the same character.
    return "".join(
        _escape(character) if unicodedata.category(character) in _UNSAFE else character for character in text
    )


def _shown(character: str, *, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    if character in _BREAKS:
        return "\n" if lines else " "
    if character in _JOINERS:
        return ""
    return _escape(character) if unicodedata.category(character) in _UNSAFE else character


def _escape(character: str) -> str:
    # As JSON has it, with two halves above U+FFFF.
    return json.dumps(character)[1:-1] if ord(character) > 0x7F else f"\\u{ord(character):04x}"
