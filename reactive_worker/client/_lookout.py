"""The one way this room waits for something to change in a table: look, and look again.

Looking is what makes it right; Realtime (push) only makes it quick. So a lost, doubled or late notification
can neither tear a hole nor tell anything twice, and with a deaf channel everything goes on, a little later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from reactive_worker.backoff import Backoff
from reactive_worker.errors import UnreachableError
from reactive_worker.store.connection import Connection
from reactive_worker.store.push.changes import Binding, Change, RealtimeLink

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How much longer each pause between two looks that found nothing is.
GROWTH = 1.5


class Clock(Protocol):
    """What pauses are measured with; tests bring one they can move."""

    def time(self) -> float:
        """Seconds since some moment."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when `event` is set, or after so many seconds."""
        ...


class LoopClock:
    """The event loop's monotonic clock."""

    def time(self) -> float:
        """Seconds of the running loop's clock."""
        return asyncio.get_running_loop().time()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when `event` is set, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()


class Lookout:
    """A poll loop's parts: a look that survives outages, a pause that a notification ends.

    Parameters
    ----------
    connection:
        Where Realtime is.
    topic, binding:
        The channel, and what it tells.
    doing:
        What the log says goes on during an outage, for example ``following task ...``.
    first, most:
        Seconds of the shortest and the longest pause between two looks.
    hear:
        Called with each change Realtime tells, before the pause ends.
    ready:
        Called when the subscription has become live, before the pause ends: what happened before it is in the
        table only.

    Example
    -------
    >>> async with Lookout(connection, "t", binding, doing="watching", first=1, most=1) as lookout:
    ...     while True:  # doctest: +SKIP
    ...         rows = await lookout.look(read)
    ...         await lookout.rest(found=bool(rows))
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        binding: Binding,
        *,
        doing: str,
        first: float,
        most: float,
        hear: Callable[[Change], None] = lambda change: None,
        ready: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        link_type: type[RealtimeLink] = RealtimeLink,
    ) -> None:
        self.clock: Clock = clock or LoopClock()
        #: Set by every notification; whoever looks clears it first.
        self.heard = asyncio.Event()
        #: Why the last look failed; None when it did not.
        self.outage: UnreachableError | None = None
        self._doing, self._told = doing, False
        self._pace, self._pauses = Backoff(first, most, factor=GROWTH, jitter=0.0), 0
        self._hear, self._ready = hear, ready
        self._link = link_type(
            connection.url,
            connection.credentials,
            topic,
            [binding],
            on_change=self._on_change,
            on_ready=self._on_ready,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._link.stop()

    async def look(self, read: Callable[[], Awaitable[T]], *, quiet: bool = False) -> T | None:
        """What `read` returns; None while Supabase cannot be reached, which is logged once an outage.

        Parameters
        ----------
        quiet:
            True when nobody goes on waiting, so that there is nothing to log.
        """
        self.heard.clear()
        try:
            found = await read()
        except UnreachableError as error:
            if not (self._told or quiet):
                logger.warning("still %s: %s", self._doing, error)
                self._told = True
            self.outage = error
            return None
        self.outage, self._told = None, False
        return found

    async def listen(self) -> None:
        """Subscribe, unless that was done: from now on a notification ends a pause."""
        await self._link.start()

    async def rest(self, *, found: bool) -> None:
        """Subscribe, then wait for a notification, or for a pause that grows while nothing is found."""
        self._pauses = 1 if found else self._pauses + 1
        await self.listen()
        await self.clock.wait(self.heard, self._pace.delay(self._pauses))

    def _on_change(self, change: Change) -> None:
        self._hear(change)
        self.heard.set()

    def _on_ready(self) -> None:
        self._ready()
        self.heard.set()
