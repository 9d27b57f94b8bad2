"""Whole numbers that pass through protobuf, whose only number in JSON values is a float.

Three rules keep a number what it is. A float that is whole and below 2**53 is written as the integer it was.
What a float cannot hold is kept beside it: as a mark inside our own messages, which becomes the number again
where JSON is written, and as its digits in messages that others read (as protobuf itself does with 64-bit
integers). A float from 2**53 on that arrives without a mark may have been another number before it came to
us, and is refused.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf import message as protobuf

from reactive_worker.errors import EventRefusedError, InvalidTaskError

M = TypeVar("M", bound=protobuf.Message)

#: From here on not every whole number is a float.
EXACT = 2.0**53
#: From here on a whole number is no id of any database, and a float that is whole is meant as one.
_IDS_END = 2.0**64

# Begins the text that stands for a number. Known to this process only, and no text of a row, for PostgreSQL
# stores no NUL.
_MARK = f"\0{secrets.token_hex(8)}:"
_MARK_BYTES = _MARK.encode()


def marked(value: Any) -> Any:
    """Copy a JSON value with a mark in place of every number a float might change.

    Raises
    ------
    EventRefusedError
        A number that JSON has not, or of more than 4,300 digits.
    """
    try:
        return _each_number(value, _mark)
    except ValueError as error:
        raise EventRefusedError(f"A number cannot be stored: {error}") from error


def spelled(value: Any) -> Any:
    """Copy a JSON value with the digits, as text, of every number a float cannot hold.

    Example
    -------
    >>> spelled({"small": 3, "id": 2**53 + 1})
    {'small': 3, 'id': '9007199254740993'}
    """
    return _each_number(value, _spell)


def parse(data: Any, into: M, *, exact: bool = False) -> M:
    """Read JSON into a protobuf message.

    Parameters
    ----------
    exact:
        Mark numbers, for `to_json` to write them as they were; else they are spelled.

    Raises
    ------
    InvalidTaskError
        It has not the form of this message, is nested too deeply or holds an impossible number.
    """
    try:
        prepared = _each_number(data, _mark if exact else _spell)
        parsed = json_format.ParseDict(prepared, into, ignore_unknown_fields=True)
        # What parses may still be too deep to be copied.
        parsed.SerializeToString()
        type(into)().CopyFrom(parsed)
    except RecursionError:
        raise InvalidTaskError(f"it is nested too deeply for an A2A {type(into).__name__}") from None
    except (json_format.Error, protobuf.Error, ValueError, TypeError, AttributeError, OverflowError) as error:
        deep = "too deep" in str(error).lower() or "maxdepth" in str(error).lower()
        why = "it is nested too deeply" if deep else str(error)
        raise InvalidTaskError(f"{why} (reading an A2A {type(into).__name__})") from error
    return parsed


def to_json(message: protobuf.Message, *, strict: bool = False) -> dict[str, Any]:
    """Write a protobuf message as JSON, with the numbers that were meant.

    Parameters
    ----------
    strict:
        Refuse a float that may have been another whole number.

    Raises
    ------
    EventRefusedError
        There is such a float.
    json_format.SerializeToJsonError
        NaN or Infinity.
    """
    return _revealed(json_format.MessageToDict(message), strict)


def revealed(value: Any) -> Any:
    """JSON that came through protobuf, with whole numbers as integers again."""
    return _revealed(value, False)


def deeper_than(value: Any, levels: int) -> bool:
    """True when a JSON value has more levels of lists and objects; looks no further than it must."""
    depth = 0
    level: list[Any] = [value]
    while level and depth <= levels:
        depth += 1
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list | tuple):
                following.extend(cast("list[Any]", item))
        level = following
    return bool(level)


def plain(message: M) -> M:
    """A message for others: numbers that were marked are spelled. Itself, when there are none."""
    if _MARK_BYTES not in message.SerializeToString():
        return message
    return json_format.ParseDict(_unmarked(json_format.MessageToDict(message)), type(message)())


def _each_number(value: Any, change: Callable[[int | float], Any]) -> Any:
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: _each_number(item, change) for key, item in items}
    if isinstance(value, list | tuple):
        return [_each_number(item, change) for item in cast("list[Any]", value)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number in JSON")
    return value if -EXACT < value < EXACT else change(value)


def _mark(number: int | float) -> str:
    return _MARK + repr(number)


def _spell(number: int | float) -> Any:
    return number if isinstance(number, float) or _fits(number) else str(number)


def _fits(number: int) -> bool:
    """True when a float, written down again, says this number."""
    try:
        return int(Decimal(repr(float(number)))) == number
    except OverflowError:
        return False


def _revealed(value: Any, strict: bool) -> Any:
    if isinstance(value, dict):
        return {key: _revealed(item, strict) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_revealed(item, strict) for item in cast("list[Any]", value)]
    if isinstance(value, str) and value.startswith(_MARK):
        digits = value[len(_MARK) :]
        return int(digits) if digits.lstrip("-").isdigit() else float(digits)
    if isinstance(value, float):
        if -EXACT < value < EXACT:
            return int(value) if value.is_integer() else value
        if strict and -_IDS_END < value < _IDS_END:
            raise EventRefusedError(
                f"This event holds the number {value:.0f}, which came as a float and may have been another "
                "one: A2A data holds whole numbers exactly up to 2**53 only. Send it as text, or as a part "
                "made by reactive_worker.execution.wire.data_part."
            )
    return value


def _unmarked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unmarked(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [_unmarked(item) for item in cast("list[Any]", value)]
    if isinstance(value, str) and value.startswith(_MARK):
        digits = value[len(_MARK) :]
        return _spell(int(digits) if digits.lstrip("-").isdigit() else float(digits))
    return value
