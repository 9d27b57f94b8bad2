"""Visibility: rows a worker was notified of before anybody else can see them.

A hint leaves with the commit record in the write-ahead log, and PostgreSQL makes a transaction visible to
others just after it has written that record. So a quick hint overtakes: a claim finds no row yet, or the row
as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from reactive_worker.models import Candidate, ClaimResult

#: Seconds after which a row that still is not as it was told is taken for gone. The gap is microseconds, or
#: as long as a busy server lets a committing process wait for its turn.
PATIENCE = 1.0
#: Seconds to wait before a claim that found nothing else is repeated.
PAUSES = (0.003, 0.01, 0.03)


class Visibility:
    """Tells rows that are yet to be seen from those that are gone.

    Parameters
    ----------
    now:
        A clock, in seconds.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> told = Candidate("1", "echo", 0, 0, *[datetime.now(UTC)] * 2, source="realtime")
    >>> Visibility().judge([told], ClaimResult((), ("1",), {"1": None})).gone
    ()
    >>> Visibility().judge([told], ClaimResult((), ("1",), {"1": 1})).gone  # somebody was quicker
    ('1',)
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[tuple[str, int], float] = {}

    def judge(self, offered: Iterable[Candidate], result: ClaimResult) -> ClaimResult:
        """The result of a claim, without the ids among its `gone` that deserve another look."""
        now = self._now()
        gone = set(result.gone)
        waiting: dict[tuple[str, int], float] = {}
        for candidate in offered:
            if candidate.id not in gone or candidate.source != "realtime":
                continue
            attempt = result.attempts.get(candidate.id, candidate.attempt + 1)
            since = self._since.get(candidate.key, now)
            # Whoever claimed it meanwhile has counted one up.
            if (attempt is None or attempt <= candidate.attempt) and now - since < PATIENCE:
                waiting[candidate.key] = since
        # What was not offered this time is kept as long as it may be offered again.
        old = {key: since for key, since in self._since.items() if now - since < 10 * PATIENCE}
        self._since = {**old, **waiting}
        kept = {id for id, _ in waiting}
        return replace(result, gone=tuple(id for id in result.gone if id not in kept))
