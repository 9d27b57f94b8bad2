"""One lazily opened store for TaskClient and Monitor, over the user's supabase client or one of our own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from reactive_worker.settings import Settings
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import TodoStore

if TYPE_CHECKING:
    from supabase import AsyncClient, Client


class LazyStore:
    """Gives a `TodoStore`; opens and closes the connection behind it when that is ours.

    Parameters
    ----------
    source:
        A supabase client (async or sync), a `Connection`, or Settings to open one from at first use.
    """

    def __init__(self, source: AsyncClient | Client | Connection | Settings) -> None:
        self._settings = source if isinstance(source, Settings) else None
        self._store: TodoStore | None = None
        self._opening = asyncio.Lock()
        self._owned = not isinstance(source, Connection)
        if isinstance(source, Connection):
            self._store = TodoStore(source)
        elif not isinstance(source, Settings):
            self._store = TodoStore(Connection(source))

    async def get(self) -> TodoStore:
        """The store; the first call opens the connection (no request is made yet)."""
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    if self._settings is None:
                        raise RuntimeError("this client is closed")
                    self._store = TodoStore(await Connection.open(self._settings.url, self._settings.key))
        return self._store

    async def aclose(self) -> None:
        """Close the connection unless it is the caller's; with Settings, the next use opens it again."""
        if self._owned and self._store is not None:
            store, self._store = self._store, None
            await store.connection.aclose()
