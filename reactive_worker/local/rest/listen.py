"""Hearing that the database has changed, so that nothing outdated stays remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg

#: Seconds between attempts to reconnect, growing from the first to the second.
RETRY = (0.05, 2.0)


async def listen_for_changes(dsn: str, changed: Callable[[], None]) -> None:
    """Call `changed` at every ``NOTIFY pgrst`` and after every (re)connection; runs until it is cancelled.

    Parameters
    ----------
    dsn:
        Connection string.
    changed:
        Called in the loop.
    """
    delay = RETRY[0]
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, connect_timeout=10, application_name="reactive-worker REST listener"
            )
            async with connection:
                await connection.execute("listen pgrst")
                # What was notified while nobody listened is unknown.
                changed()
                delay = RETRY[0]
                async for _ in connection.notifies():
                    changed()
        except psycopg.OperationalError:
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY[1])
