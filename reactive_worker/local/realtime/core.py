"""What all sockets of one server share, and how a channel's subscriptions come into force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import psycopg

from reactive_worker.local.faults import Faults
from reactive_worker.local.realtime.bindings import Binding
from reactive_worker.local.realtime.broadcast import BroadcastHub
from reactive_worker.local.realtime.catalog import published_tables
from reactive_worker.local.realtime.changes import ChangeProcessor
from reactive_worker.local.realtime.database import Database
from reactive_worker.local.realtime.poller import ChangePoller
from reactive_worker.local.realtime.presence import PresenceHub
from reactive_worker.local.realtime.render import Renderer
from reactive_worker.local.realtime.subscriptions import Registry, Subscriber
from reactive_worker.local.realtime.timings import Timings
from reactive_worker.local.realtime.tokens import KeyRing, Token
from reactive_worker.local.realtime.validation import SubscriptionFactory

log = logging.getLogger(__name__)

#: How often a switched-on "withhold" is looked at again, in seconds.
_WITHHELD_CHECK = 0.02


class Core:
    """Shared state of one Realtime server, for one database.

    Parameters
    ----------
    dsn:
        Connection string of a superuser of the database.
    keys, faults, timings:
        As given to the server.
    """

    def __init__(self, dsn: str, *, keys: KeyRing, faults: Faults, timings: Timings) -> None:
        self.keys = keys
        self.faults = faults
        self.timings = timings
        self.broadcasts = BroadcastHub()
        self.presences = PresenceHub()
        self.registry = Registry()
        renderer = Renderer()
        self._factory = SubscriptionFactory(renderer)
        self._subscriptions = Database(dsn, name="realtime_subscriptions")
        self._changes = Database(dsn, name="realtime_rls")
        processor = ChangeProcessor(self._changes, self.registry, renderer)
        self.poller = ChangePoller(
            dsn, deliver=processor.deliver, registry=self.registry, faults=faults, timings=timings
        )
        self._published: frozenset[int] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def subscribe(self, subscriber: Subscriber, bindings: Sequence[Binding], token: Token) -> None:
        """Put bindings in force: when this returns, changes committed from now on will be delivered.

        Tries again for as long as the database is down, as nobody has been promised anything yet.

        Raises
        ------
        BindingError
            A binding does not fit the database.
        """
        await asyncio.sleep(self.faults.system_ok_delay)
        # Any thread may flip the switch, and without notice: hence the repeated look.
        while self.faults.withhold_system_ok:  # noqa: ASYNC110
            await asyncio.sleep(_WITHHELD_CHECK)
        self._stay()
        wait = self.timings.reconnect_first
        while True:
            try:
                async with self._subscriptions.connection() as connection:
                    made = await self._factory.create(connection, bindings, token, subscriber)
                    if self._published is None:
                        self._published = await published_tables(connection)
                break
            except psycopg.OperationalError as error:
                log.warning("subscribing failed, trying again in %.1f s: %s", wait, error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, self.timings.reconnect_longest)
        await self.poller.ready()
        self.registry.replace(subscriber, made)
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_publication(), name="realtime-publication")

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End a channel's subscriptions; with the last one the slot is given up, a little later."""
        self.registry.remove(subscriber)
        if not len(self.registry) and self.poller.running and self._lingering is None:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self.timings.linger, self._rest)

    def _stay(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _rest(self) -> None:
        self._lingering = None
        if not len(self.registry):
            self._closing = asyncio.create_task(self._close_connections(), name="realtime-rest")

    async def _close_connections(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            await _end(checking)
        self._published = None
        await self.poller.stop()
        await self._subscriptions.close()
        await self._changes.close()

    async def _check_publication(self) -> None:
        """Subscribe everybody anew when the set of published tables has changed."""
        while True:
            await asyncio.sleep(self.timings.publication_check)
            try:
                async with self._subscriptions.connection() as connection:
                    found = await published_tables(connection)
            except psycopg.OperationalError as error:
                log.warning("checking the publication failed: %s", error)
                continue
            if found != self._published:
                self._published = found
                for subscriber in self.registry.subscribers():
                    subscriber.subscribe()

    async def close(self) -> None:
        """Give up the slot and all connections; returns when the database may be dropped."""
        self._stay()
        if self._closing is not None:
            await _end(self._closing)
        await self._close_connections()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
