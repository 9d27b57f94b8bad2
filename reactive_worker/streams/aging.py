"""A key for `prioritise`: waiting makes a candidate more urgent."""

from __future__ import annotations

from typing import Any

from reactive_worker.models import Candidate
from reactive_worker.streams._priority import PriorityKey


def aging(per: float) -> PriorityKey:
    """Order by priority plus one point for every `per` seconds of waiting.

    ::

        per=60       0 s   60 s   120 s   180 s
        a: priority 1   1      2      3       4      comes at 0 s
        b: priority 3                 3       4      comes at 120 s: the same urgency as a, which is older

    Everybody's urgency grows at the same pace, so who is ahead of whom never changes, and nothing has to be
    sorted again as time passes: the order is that of priority minus the time a candidate came at.

    Parameters
    ----------
    per:
        Seconds of waiting that are worth one point of priority.

    Returns
    -------
    What `prioritise` takes as its `key`, and `fair_by` too. Waiting begins at `available_at`.

    Raises
    ------
    ValueError
        When `per` is not above 0.

    Example
    -------
    >>> from datetime import UTC, datetime, timedelta
    >>> urgency = aging(per=60)
    >>> noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    >>> old = Candidate("old", "digest", 0, 0, noon, noon)
    >>> new = Candidate("new", "digest", 5, 0, noon + timedelta(minutes=10), noon)
    >>> [candidate.id for candidate in sorted([new, old], key=urgency)]
    ['old', 'new']
    """
    if per <= 0:
        raise ValueError(f"per must be above 0 seconds, not {per!r}")

    def key(candidate: Candidate) -> Any:
        came = candidate.available_at.timestamp()
        return (came / per - candidate.priority, came, candidate.id)

    return key
