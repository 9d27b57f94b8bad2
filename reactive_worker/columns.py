"""Columns of rows: read one by one into typed values, and given back as JSON."""

from __future__ import annotations

import reprlib
import uuid
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from reactive_worker.errors import InvalidTaskError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Fields that are ours and no column of any table.
_NOT_COLUMNS = frozenset({"row", "outcome", "unreadable"})


class FlawedRow(dict[str, Any]):
    """A row with columns that JSON could say and Python could not read; they are absent, or None inside.

    jsonb holds numbers of any length and values of any depth; Python reads integers of 4,300 digits and a
    thousand levels.
    """

    def __init__(self, columns: Mapping[str, Any], flaws: Mapping[str, str]) -> None:
        super().__init__(columns)
        #: Column -> why it cannot be read.
        self.flaws = dict(flaws)

    @property
    def reason(self) -> str:
        """What is wrong, for a person."""
        return "; ".join(f"{name} {why}" for name, why in self.flaws.items())


def parse_time(value: object, what: str) -> datetime:
    """Read a timestamp as PostgREST and Realtime render it; raises InvalidTaskError.

    What lies beyond Python's years 1 to 9999 becomes the nearest moment within: PostgreSQL knows 4713 BC to
    the year 294276, and infinity on both sides.
    """
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        if value == "-infinity" or value.endswith(" BC"):
            moment = datetime.min
        elif value == "infinity" or value.find("-") > 4:
            moment = datetime.max
        else:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError as error:
                raise InvalidTaskError(f"{what} is not a timestamp: {shown(value)}") from error
    else:
        raise InvalidTaskError(f"{what} is not a timestamp: {shown(value)}")
    if not moment.tzinfo:
        return moment.replace(tzinfo=UTC)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        # The first or last hours of Python's time, told in a zone that has them earlier or later.
        return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)
    return moment


def shown(value: object) -> str:
    """A value for an error message: short, whatever it holds."""
    return reprlib.repr(value)


def uuid_in(row: Mapping[str, Any], key: str) -> str:
    """A uuid column; raises InvalidTaskError, as all of these do."""
    value = row.get(key)
    try:
        return str(uuid.UUID(str(value)))
    except (ValueError, RecursionError) as error:
        raise InvalidTaskError(f"{key} is not a uuid: {shown(value)}") from error


def text_in(row: Mapping[str, Any], key: str) -> str:
    """A text column that is never null."""
    value = row.get(key)
    if not isinstance(value, str):
        raise InvalidTaskError(f"{key} is missing or no text: {shown(value)}")
    return value


def int_in(row: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number, or `default` for null."""
    found = optional_int_in(row, key)
    return default if found is None else found


def optional_int_in(row: Mapping[str, Any], key: str) -> int | None:
    """A whole number or null."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTaskError(f"{key} is no integer: {shown(value)}")
    return value


def optional_text_in(row: Mapping[str, Any], key: str) -> str | None:
    """A text column, or null."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidTaskError(f"{key} is no text: {shown(value)}")
    return value


def optional_time_in(row: Mapping[str, Any], key: str) -> datetime | None:
    """A timestamp or null."""
    value = row.get(key)
    return None if value is None else parse_time(value, key)


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


def as_row(value: DataclassInstance) -> dict[str, Any]:
    """A typed row as its table has it: column names and JSON values, the user's own columns last.

    Example
    -------
    >>> as_row(todo)["agent_status"]  # doctest: +SKIP
    'completed'
    """
    came: Mapping[str, Any] = getattr(value, "row", {})
    row = {
        spec.name: came[spec.name] if spec.name in came else _as_json(getattr(value, spec.name))
        for spec in fields(value)
        if spec.name not in _NOT_COLUMNS
    }
    return row | {name: item for name, item in came.items() if name not in row}
