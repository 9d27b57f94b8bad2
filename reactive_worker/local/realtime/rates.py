"""How many broadcasts pass per second, on the average of the last while."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from reactive_worker.local.faults import Faults

#: The window is counted in so many pieces, and forgets a piece at a time.
_PIECES = 60


class MessageRate:
    """Counts broadcasts, sent and received ones alike, against the fault switch `message_rate_limit`.

    Parameters
    ----------
    faults:
        Limit and window.
    clock:
        Seconds, ever growing.

    Example
    -------
    >>> rate = MessageRate(faults)
    >>> rate.count()
    >>> rate.exceeded
    False
    """

    def __init__(self, faults: Faults, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._faults = faults
        self._clock = clock
        #: When a piece began, and what was counted in it.
        self._pieces: deque[list[float]] = deque()
        self._total = 0

    def count(self) -> None:
        """One more message was sent or received."""
        if self._faults.message_rate_limit is None:
            return
        now = self._clock()
        if self._pieces and now - self._pieces[-1][0] < self._faults.message_rate_window / _PIECES:
            self._pieces[-1][1] += 1
        else:
            self._pieces.append([now, 1])
        self._total += 1

    @property
    def average(self) -> float:
        """Messages per second, over the whole window."""
        window = self._faults.message_rate_window
        now = self._clock()
        while self._pieces and now - self._pieces[0][0] >= window:
            self._total -= int(self._pieces.popleft()[1])
        return self._total / window

    @property
    def exceeded(self) -> bool:
        """Whether the limit is exceeded now."""
        limit = self._faults.message_rate_limit
        return limit is not None and self.average > limit
