"""The database's time, as far as this process knows it."""

from __future__ import annotations

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
        self._offset = timedelta()

    def set(self, database_now: datetime) -> None:
        """Note the database's time, just received."""
        self._offset = database_now - datetime.now(UTC)

    def at_least(self, moment: datetime) -> None:
        """It was `moment` in the database, some time ago: what was due then is due now."""
        self._offset = max(self._offset, moment - datetime.now(UTC))

    def now(self) -> datetime:
        """The database's time now, within a round trip."""
        return datetime.now(UTC) + self._offset
