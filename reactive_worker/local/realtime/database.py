"""One SQL connection that comes back by itself: for validating subscriptions, and for judging changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

#: The API's view of the database: JSON has times in UTC.
_SESSION = "-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=postgres -c search_path=public"

AnyConnection = psycopg.AsyncConnection[tuple[Any, ...]]


class Database:
    """A connection opened at first use and again after it failed. One user at a time.

    Parameters
    ----------
    dsn:
        Connection string of a superuser.
    name:
        Shown in ``pg_stat_activity``.
    """

    def __init__(self, dsn: str, *, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: AnyConnection | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AnyConnection]:
        """Borrow the connection, in autocommit mode.

        Raises
        ------
        psycopg.OperationalError
            The database cannot be reached; the next call tries again.
        """
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    options=_SESSION,
                    application_name=self._name,
                    connect_timeout=10,
                )
            yield self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
