"""Text with a colour: the only way a colour gets into what is printed."""

from __future__ import annotations

from typing import NamedTuple

#: How a status looks in every list.
STATUS_STYLE = {
    "pending": "yellow",
    "in_progress": "blue",
    "input_required": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
}


class Styled(NamedTuple):
    """Text with a colour, where a terminal shows it."""

    style: str
    text: str


def status(name: str) -> Styled:
    """A task's status in its colour."""
    return Styled(STATUS_STYLE.get(name, "bold"), name)
