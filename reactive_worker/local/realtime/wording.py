"""Values written the way the real server's error texts write them (Elixir's ``inspect``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

_WIDTH = 80


def text(value: str) -> str:
    """A quoted string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("#{", "\\#{")
    for plain, written in (("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        escaped = escaped.replace(plain, written)
    return f'"{escaped}"'


def inspect(value: Any) -> str:
    """Any JSON value: ``%{"event" => "*", "filter" => nil}``."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case str():
            return text(value)
        case Mapping():
            pairs = sorted(cast("Mapping[str, Any]", value).items())
            return "%{" + ", ".join(f"{text(key)} => {inspect(item)}" for key, item in pairs) + "}"
        case list() | tuple():
            return "[" + ", ".join(inspect(item) for item in cast("Sequence[Any]", value)) + "]"
        case _:
            return str(value)


def _filled(items: Sequence[str], indent: int) -> str:
    """Items of a tuple, as many on a line as fit."""
    lines: list[str] = []
    line = ""
    for index, item in enumerate(items):
        piece = item + ("," if index < len(items) - 1 else "")
        if line and indent + len(line) + 1 + len(piece) > _WIDTH:
            lines.append(line)
            line = piece
        else:
            line = f"{line} {piece}" if line else piece
    lines.append(line)
    return ("\n" + " " * indent).join(lines)


def filters(parsed: Sequence[tuple[str, str, str, bool]]) -> str:
    """The parsed filters of a binding, broken into lines where they are longer than a line."""
    tuples = [
        [text(column), text(operator), text(value), inspect(negate)]
        for column, operator, value, negate in parsed
    ]
    one_line = "[" + ", ".join("{" + ", ".join(items) + "}" for items in tuples) + "]"
    if len(one_line) <= _WIDTH:
        return one_line
    return "[\n" + ",\n".join("  {" + _filled(items, 3) + "}" for items in tuples) + "\n]"
