"""Something that is opened when first needed and closed a while after it was last needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class StoppedError(Exception):
    """It has been stopped for good."""


class Linger:
    """Closes what is not in use, later.

    Parameters
    ----------
    in_use:
        Whether anybody needs it now.
    close:
        Closes it; it may be opened again afterwards.
    seconds:
        How long it stays open unused.

    Example
    -------
    >>> linger = Linger(in_use=lambda: users > 0, close=connection.close, seconds=10)
    >>> await linger.stay()      # from here on it will not be closed while it is in use
    >>> linger.rest_later()      # after every end of a use
    """

    def __init__(
        self, *, in_use: Callable[[], bool], close: Callable[[], Awaitable[None]], seconds: float
    ) -> None:
        self._in_use = in_use
        self._close = close
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None
        self._stopped = False

    async def stay(self) -> None:
        """Keep it open, or let it be closed in full before it is opened again.

        Raises
        ------
        StoppedError
            `stop` was called.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing is not None:
            await asyncio.wait({self._closing})
        if self._stopped:
            raise StoppedError

    def rest_later(self) -> None:
        """Close it after a while, should nobody need it."""
        if not self._in_use() and not self._stopped and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._rest)

    def _rest(self) -> None:
        self._timer = None
        # One closing at a time: whoever comes next waits for the latest only.
        if not self._in_use() and (self._closing is None or self._closing.done()):
            self._closing = asyncio.ensure_future(self._close())

    async def stop(self) -> None:
        """Close it now and for good."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._closing is not None:
            await asyncio.wait({self._closing})
        await self._close()
