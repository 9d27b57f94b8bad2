"""Guessing what somebody meant to write."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def closest(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that looks most like `name`, if any does."""
    matches = difflib.get_close_matches(name, [other for other in names if other != name], n=1)
    return matches[0] if matches else None
