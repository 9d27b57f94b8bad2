"""Item access to rows: `todo["agent_output"]` beside `todo.agent_output`.

Programs written against plain PostgREST rows index them like dictionaries. Attributes give typed values,
items give what the column holds as JSON: the same row serves both styles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any

#: Fields that are ours and no column of any table.
_NOT_COLUMNS = frozenset({"row", "outcome"})


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


class Columns:
    """Mixin for the dataclasses of `models`: reads like a mapping of column names to JSON values."""

    __slots__ = ()

    def _row(self) -> Mapping[str, Any]:
        """The row as it came, where it is kept: a user's own columns are found there."""
        row: Mapping[str, Any] = getattr(self, "row", {})
        return row

    def keys(self) -> list[str]:
        """Column names, ours first, then the user's own."""
        ours = [spec.name for spec in fields(self) if spec.name not in _NOT_COLUMNS]  # type: ignore[arg-type]
        return ours + [name for name in self._row() if name not in ours]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Any:
        row = self._row()
        if name in row:
            return row[name]
        if name not in self.keys():
            raise KeyError(name)
        return _as_json(getattr(self, name))

    def get(self, name: str, default: Any = None) -> Any:
        """The column's value, or `default` when there is no such column."""
        try:
            return self[name]
        except KeyError:
            return default
