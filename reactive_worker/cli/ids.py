"""Ids of tasks as people type them: any beginning that fits one task."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reactive_worker.errors import InvalidTaskError, TaskNotFoundError

if TYPE_CHECKING:
    from reactive_worker.store.store import TodoStore

#: Fewer characters name too many tasks to be meant.
LEAST = 4
_DIGITS = 32


def check_ids(beginnings: Iterable[str]) -> None:
    """Raise InvalidTaskError for what can begin no id: a typing error needs no network to be told."""
    for beginning in beginnings:
        _digits(beginning)


async def whole_ids(store: TodoStore, beginnings: Sequence[str]) -> list[str]:
    """The tasks' whole ids, in the order given.

    Parameters
    ----------
    beginnings:
        Whole ids, which are taken as they are, or at least 4 characters of one.

    Raises
    ------
    InvalidTaskError
        One can begin no id, or begins several.
    TaskNotFoundError
        No task's id begins like that.
    """
    return list(await asyncio.gather(*(_whole_id(store, beginning) for beginning in beginnings)))


async def whole_id(store: TodoStore, beginning: str) -> str:
    """The whole id of one task; see `whole_ids`."""
    return (await whole_ids(store, [beginning]))[0]


async def _whole_id(store: TodoStore, beginning: str) -> str:
    digits = _digits(beginning)
    if len(digits) == _DIGITS:
        return str(uuid.UUID(digits))
    # Beginnings are a range of the primary key.
    first, last = (str(uuid.UUID(digits.ljust(_DIGITS, filler))) for filler in "0f")
    rows = await store.connection.select(
        "todolist", "id", filters=[("id", "gte", first), ("id", "lte", last)], order=[("id", False)], limit=4
    )
    found = [str(row["id"]) for row in rows]
    if not found:
        raise TaskNotFoundError(f"no task whose id begins with {beginning}, or it belongs to somebody else")
    if len(found) > 1:
        more = f"{', '.join(found[:3])}{' and more' if len(found) > 3 else ''}"
        raise InvalidTaskError(f"several tasks' ids begin with {beginning}: {more}; give more of it")
    return found[0]


def _digits(beginning: str) -> str:
    digits = beginning.strip().lower().replace("-", "")
    if not re.fullmatch(f"[0-9a-f]{{{LEAST},{_DIGITS}}}", digits):
        raise InvalidTaskError(
            f"not a task id (a uuid, or at least {LEAST} characters of its beginning): {beginning!r}"
        )
    return digits


def brief(ids: Sequence[str]) -> dict[str, str]:
    """For each id a beginning that tells it from the others, at least 8 characters long.

    >>> brief(["0b8e2a52-2f0e-4fd6-8d5f-57a5d6a32b0e", "0b8e2a52-3f0e-4fd6-8d5f-57a5d6a32b0e"]).popitem()[1]
    '0b8e2a52-3f0'
    """
    length = 8
    while length < 36 and len({id[:length] for id in ids}) < len(set(ids)):
        length += 1
    # As few as tell them apart may end with the dash, or be ambiguous as soon as one more task is there.
    length = length if length == 8 else min(36, length + 2)
    return {id: id[:length] for id in ids}
