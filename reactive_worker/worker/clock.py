"""The database's time, as far as this process knows it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Follows the database's clock by what its answers say.

    Example
    -------
    >>> clock = Clock()
    >>> clock.set(datetime.now(UTC) + timedelta(hours=1))
    >>> clock.now() > datetime.now(UTC) + timedelta(minutes=59)
    True
    """

    def __init__(self) -> None:
        # By the monotonic clock: a machine's clock that is set forward makes no row due.
        self._then, self._ticks = datetime.now(UTC), time.monotonic()

    def set(self, database_now: datetime) -> None:
        """Note the database's time, just received."""
        self._then, self._ticks = database_now, time.monotonic()

    def at_least(self, moment: datetime) -> None:
        """It was `moment` in the database, some time ago: what was due then is due now."""
        self.set(max(self.now(), moment))

    def now(self) -> datetime:
        """The database's time now, within a round trip."""
        return self._then + timedelta(seconds=time.monotonic() - self._ticks)
