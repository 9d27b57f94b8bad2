"""One SQL connection that comes back by itself: for validating subscriptions, and for judging changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg

log = logging.getLogger(__name__)

#: The API's view of the database: JSON has times in UTC.
_SESSION = "-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=postgres -c search_path=public"

T = TypeVar("T")

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
        self._connecting: asyncio.Task[AnyConnection] | None = None
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
                self._connection = await self._connect()
            yield self._connection

    async def run(self, work: Callable[[AnyConnection], Awaitable[T]]) -> T:
        """Do something on the connection that may be done twice; again, should the connection be found dead.

        Parameters
        ----------
        work:
            Called with the connection.

        Returns
        -------
        What `work` returns.

        Raises
        ------
        psycopg.Error
            It failed, on a connection that was alive or new.
        """
        known = self._connection
        try:
            async with self.connection() as connection:
                return await work(connection)
        except psycopg.OperationalError as error:
            if known is None or not known.closed:
                raise
            log.debug("%s: the connection was dead, a new one is made: %s", self._name, error)
        async with self.connection() as connection:
            return await work(connection)

    async def _connect(self) -> AnyConnection:
        # A cancelled attempt would leave its socket open, and PostgreSQL waiting in the middle of the login
        # for a minute, in which no database can be dropped. So it is finished, whoever is still interested.
        if self._connecting is None:
            attempt = psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                options=_SESSION,
                application_name=self._name,
                connect_timeout=10,
            )
            self._connecting = asyncio.create_task(attempt, name=f"connect {self._name}")
        try:
            connection = await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            # It may have been made in this very moment: whoever comes next takes it, or closes it.
            raise
        except BaseException:
            self._connecting = None
            raise
        self._connecting = None
        return connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._lock:
            if self._connecting is not None:
                try:
                    self._connection = await self._connect()
                except psycopg.Error as error:
                    log.debug("%s was never connected: %s", self._name, error)
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
