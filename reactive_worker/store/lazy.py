"""One lazily opened store for TaskClient and Monitor, over the user's supabase client or one of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from reactive_worker.errors import ClientClosedError, EventLoopError
from reactive_worker.settings import Settings
from reactive_worker.store.connection import Connection
from reactive_worker.store.per_loop import PerLoop
from reactive_worker.store.store import TodoStore

if TYPE_CHECKING:
    from supabase import AsyncClient, Client

_ELSEWHERE = (
    "this supabase AsyncClient was first used in another event loop, and its connections work in no other: "
    "make one in each loop (inside of what asyncio.run runs), pass the synchronous client, or use "
    "TaskClient.from_settings(), which opens a connection for each loop"
)


class LazyStore:
    """Gives a `TodoStore`; opens and closes the connection behind it when that is ours.

    Parameters
    ----------
    source:
        A supabase client (async or sync), a `Connection`, or Settings to open one from at first use: a
        connection for each event loop that asks.
    """

    def __init__(self, source: AsyncClient | Client | Connection | Settings) -> None:
        self._settings = source if isinstance(source, Settings) else None
        self._opened = PerLoop[_Opened]()
        self._given: TodoStore | None = None
        # The loop a given client was first used in; an async one works in no other.
        self._home: asyncio.AbstractEventLoop | None = None
        self._owned = not isinstance(source, Connection)
        if isinstance(source, Connection):
            self._given = TodoStore(source)
        elif not isinstance(source, Settings):
            self._given = TodoStore(Connection(source))

    async def get(self) -> TodoStore:
        """The store; the first call in an event loop opens the connection (no request is made yet).

        Raises
        ------
        ClientClosedError
            It was closed, and is the user's: only one made from Settings opens again.
        EventLoopError
            The user's async client was used in another event loop before.
        """
        if self._settings is None:
            return self._checked()
        if (found := self._opened.get()) is not None:
            return found.store
        opened = _Opened(await Connection.open(self._settings.url, self._settings.key))
        await anext(opened.life)
        if (found := self._opened.get()) is not None:
            # Somebody else was quicker while we waited.
            await opened.aclose()
            return found.store
        return self._opened.keep(opened).store

    def _checked(self) -> TodoStore:
        if self._given is None:
            raise ClientClosedError("this client was closed: make another one")
        if self._given.connection.is_async:
            running = asyncio.get_running_loop()
            if self._home is None:
                self._home = running
            elif self._home is not running:
                raise EventLoopError(_ELSEWHERE)
        return self._given

    async def aclose(self) -> None:
        """Close the connection unless it is the caller's; with Settings, the next use opens it again."""
        await self._opened.end(_Opened.aclose)
        if self._owned and self._given is not None:
            store, self._given = self._given, None
            await store.connection.aclose()


class _Opened:
    """A connection of ours in one event loop."""

    def __init__(self, connection: Connection) -> None:
        self.store = TodoStore(connection)
        self.life = _until_closed(connection)

    async def aclose(self) -> None:
        await self.life.aclose()


async def _until_closed(connection: Connection) -> AsyncGenerator[None]:
    # A generator, for a loop that ends (asyncio.run) closes those that are open: a program that never closes
    # its client leaves no sockets behind in loops that have ended.
    try:
        yield
    finally:
        await connection.aclose()
