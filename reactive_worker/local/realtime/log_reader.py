"""Keeps one stream of the log open: begins anew when it failed, gives up the slot when it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from reactive_worker.local.realtime import decode
from reactive_worker.local.realtime.stream import ReplicationStream, StreamError, slot_name

log = logging.getLogger(__name__)

#: Seconds between two confirmations of what was read.
_CONFIRM_EVERY = 1.0

#: Takes messages of the log, in order; returns up to where it has dealt with them.
Take = Callable[[Sequence[bytes]], Awaitable[int]]


class LogReader:
    """Streams what one publication publishes, for as long as it runs.

    Parameters
    ----------
    dsn:
        Connection string of a superuser.
    publication:
        Which tables.
    name:
        Of the connection, and how the slot's name begins.
    first_wait, longest_wait:
        Seconds between attempts to reach a database that is down.

    Attributes
    ----------
    live:
        Set while the stream is open: what is committed from now on will be taken.
    """

    def __init__(
        self, dsn: str, *, publication: str, name: str, first_wait: float, longest_wait: float
    ) -> None:
        self._dsn = dsn
        self._publication = publication
        self._name = name
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self.live = asyncio.Event()

    async def run(
        self, take: Take, *, opened: Callable[[], None], prepare: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Read until cancelled; after a failure wait and begin anew with a new slot.

        What was committed in between is lost, and nobody is told, as on the real server.

        Parameters
        ----------
        take:
            Called with messages as they come; what it raises other than DecodeError ends the reading.
        opened:
            Called when a new stream begins: what is known of tables must be forgotten.
        prepare:
            Called before each attempt; an error of the database counts as a failed attempt.
        """
        wait = self._first_wait
        while True:
            slot = slot_name((self._name, os.getpid(), secrets.token_hex(4)))
            stream = ReplicationStream(
                self._dsn, publication=self._publication, slot=slot, application_name=self._name
            )
            try:
                if prepare is not None:
                    await prepare()
                await stream.open()
                opened()
                self.live.set()
                wait = self._first_wait
                await self._read(stream, take)
            except (StreamError, decode.DecodeError, psycopg.Error) as error:
                log.warning("%s: reading the log failed, trying again in %.1f s: %s", self._name, wait, error)
            except asyncio.CancelledError:
                await self._end(stream)
                raise
            finally:
                self.live.clear()
                stream.close()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, self._longest_wait)

    async def _read(self, stream: ReplicationStream, take: Take) -> None:
        confirmed = time.monotonic()
        while True:
            lsn = await take(await stream.read())
            if time.monotonic() - confirmed >= _CONFIRM_EVERY:
                confirmed = time.monotonic()
                # What waits in memory counts as taken: the slot dies with this process anyway.
                await stream.confirm(lsn)

    async def _end(self, stream: ReplicationStream) -> None:
        try:
            async with asyncio.timeout(2):
                await stream.end()
        except (StreamError, TimeoutError) as error:
            # The slot is temporary: the server drops it when it notices the closed connection.
            log.debug("the replication stream did not end in order: %s", error)
