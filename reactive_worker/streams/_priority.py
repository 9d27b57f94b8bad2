"""Who comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactive_worker.models import Candidate

#: Gives what candidates are ordered by, smallest first; any values that compare with each other.
PriorityKey = Callable[[Candidate], Any]


def default_priority(candidate: Candidate) -> Any:
    """The database's own order: strictly by priority (higher first), then by age.

    >>> from datetime import UTC, datetime
    >>> default_priority(Candidate("1", "digest", 5, 0, *[datetime(2030, 1, 1, tzinfo=UTC)] * 2))[0]
    -5
    """
    return (-candidate.priority, candidate.available_at, candidate.id)


def take_room(room: dict[str, int], candidate: Candidate) -> bool:
    """Whether a candidate's type has room left; takes it. Types that are not listed have no limit."""
    left = room.get(candidate.agent_type)
    if left is None:
        return True
    if left <= 0:
        return False
    room[candidate.agent_type] = left - 1
    return True
