"""Candidates that somebody else had locked: how often, and until when each is left alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from reactive_worker.backoff import Backoff

#: Rows remembered; those rested longest ago are forgotten first.
_REMEMBERED = 10_000


class Resting:
    """Back-off by candidate: one that is locked again and again is looked at ever more rarely.

    >>> resting = Resting(Backoff(1.0, 60.0, jitter=0.0))
    >>> resting.rest(["a"], now=0.0), resting.rest(["a", "b"], now=1.0)
    ({'a': 1.0}, {'a': 2.0, 'b': 1.0})
    >>> resting.left("a", now=2.0), resting.left("b", now=2.0)
    (1.0, 0.0)
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        # id -> (how often in a row, until when)
        self._rows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def rest(self, ids: Iterable[str], now: float) -> dict[str, float]:
        """These were locked; returns the seconds each is left alone."""
        pauses: dict[str, float] = {}
        for id in ids:
            times = self._rows.pop(id, (0, 0.0))[0] + 1
            pauses[id] = self._backoff.delay(times)
            self._rows[id] = (times, now + pauses[id])
            if len(self._rows) > _REMEMBERED:
                self._rows.popitem(last=False)
        return pauses

    def forget(self, ids: Iterable[str]) -> None:
        """These were claimed, or are gone."""
        for id in ids:
            self._rows.pop(id, None)

    def left(self, id: str, now: float) -> float:
        """Seconds until it may be claimed again; 0 when it may."""
        row = self._rows.get(id)
        return 0.0 if row is None else max(0.0, row[1] - now)
