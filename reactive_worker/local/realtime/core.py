"""What all sockets of one server share, and how a channel's subscriptions come into force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import psycopg

from reactive_worker.local.faults import Faults
from reactive_worker.local.realtime.authorization import Authorizer
from reactive_worker.local.realtime.bindings import Binding, BindingError
from reactive_worker.local.realtime.broadcast import BroadcastHub
from reactive_worker.local.realtime.catalog import published_tables
from reactive_worker.local.realtime.changes import ChangeProcessor
from reactive_worker.local.realtime.database import Database
from reactive_worker.local.realtime.linger import Linger, StoppedError
from reactive_worker.local.realtime.messages import MessageStream
from reactive_worker.local.realtime.payload import Change
from reactive_worker.local.realtime.poller import ChangePoller
from reactive_worker.local.realtime.presence import PresenceHub
from reactive_worker.local.realtime.rates import MessageRate
from reactive_worker.local.realtime.render import Renderer
from reactive_worker.local.realtime.subscriptions import Registry, Subscriber
from reactive_worker.local.realtime.timings import Timings
from reactive_worker.local.realtime.tokens import KeyRing, Token
from reactive_worker.local.realtime.validation import SubscriptionFactory

log = logging.getLogger(__name__)

#: How often a switched-on "withhold" is looked at again, in seconds.
_WITHHELD_CHECK = 0.02
#: Bytes waiting in a socket from which on delivery pauses; for how long, and how often it looks, in seconds.
_MUCH = 4 * 1024 * 1024
_PATIENCE = 2.0
#: Characters of the values of changes that are delivered before the sockets are looked at.
_PORTION = 1024 * 1024
_DRAIN_CHECK = 0.005


def _portions(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    first = size = 0
    for number, change in enumerate(changes, start=1):
        size += sum(len(value) for value in change.new or () if isinstance(value, str))
        if size > _PORTION:
            yield changes[first:number]
            first, size = number, 0
    if first < len(changes):
        yield changes[first:]


class Backlog(Protocol):
    """A socket, as far as waiting frames go."""

    @property
    def unsent(self) -> int:
        """Bytes waiting to be sent."""
        ...

    stalled: bool


class Core:
    """Shared state of one Realtime server, for one database.

    Parameters
    ----------
    dsn:
        Connection string of a superuser of the database.
    keys, faults, timings:
        As given to the server.
    sockets:
        All that are open: changes are not delivered faster than they can send them.
    """

    def __init__(
        self, dsn: str, *, keys: KeyRing, faults: Faults, timings: Timings, sockets: Collection[Backlog]
    ) -> None:
        self.keys = keys
        self.faults = faults
        self.timings = timings
        self.broadcasts = BroadcastHub(MessageRate(faults))
        self.authorizer = Authorizer(dsn)
        self.messages = MessageStream(
            dsn, deliver=self.broadcasts.publish_stored, faults=faults, timings=timings
        )
        self.presences = PresenceHub()
        self.registry = Registry()
        renderer = Renderer()
        self._factory = SubscriptionFactory(renderer)
        self._subscriptions = Database(dsn, name="realtime_subscriptions")
        self._changes = Database(dsn, name="realtime_rls")
        self._processor = ChangeProcessor(self._changes, self.registry, renderer)
        self._sockets = sockets
        self.poller = ChangePoller(
            dsn, deliver=self._deliver, registry=self.registry, faults=faults, timings=timings
        )
        self._published: frozenset[int] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._subscribing = 0
        self._channels = 0
        self._changes_linger = Linger(
            in_use=lambda: self._subscribing > 0 or len(self.registry) > 0,
            close=self._close_changes,
            seconds=timings.linger,
        )
        self._messages_linger = Linger(
            in_use=lambda: self._channels > 0, close=self._close_messages, seconds=timings.linger
        )

    async def _deliver(self, changes: Sequence[Change]) -> int:
        wanted = 0
        # One large transaction at once would be more than is kept even for a client that reads well.
        for portion in _portions(changes):
            wanted += await self._processor.deliver(portion)
            await self._let_sockets_send()
        return wanted

    async def _let_sockets_send(self) -> None:
        waited = 0.0
        # A bulk load is read faster than sent: without a pause all of it would wait in memory. A client that
        # does not read at all is not waited for again; its own limit ends it.
        while behind := [socket for socket in self._sockets if socket.unsent > _MUCH and not socket.stalled]:
            if waited >= _PATIENCE:
                for socket in behind:
                    socket.stalled = True
                break
            await asyncio.sleep(_DRAIN_CHECK)
            waited += _DRAIN_CHECK

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
        while self.faults.withhold_system_ok:  # noqa: ASYNC110 - see above
            await asyncio.sleep(_WITHHELD_CHECK)
        self._subscribing += 1
        try:
            await self._changes_linger.stay()
            await self._subscribe(subscriber, bindings, token)
        except StoppedError:
            raise BindingError("Realtime is being stopped") from None
        finally:
            self._subscribing -= 1
            self._changes_linger.rest_later()

    async def _subscribe(self, subscriber: Subscriber, bindings: Sequence[Binding], token: Token) -> None:
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
            self._checking = asyncio.create_task(self._watch_publication(), name="realtime-publication")

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End a channel's subscriptions; with the last one the slot is given up, a little later."""
        self.registry.remove(subscriber)
        self._changes_linger.rest_later()

    async def _close_changes(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
            await asyncio.wait({checking})
        self._published = None
        await self.poller.stop()
        await self._subscriptions.close()
        await self._changes.close()

    # -- messages of the database ------------------------------------------------------------------------

    async def enter(self) -> None:
        """A channel begins: from now on messages of the database are streamed, until the last has left.

        Raises
        ------
        StoppedError
            The server is being stopped.
        """
        self._channels += 1
        try:
            await self._messages_linger.stay()
        except BaseException:
            self.leave()
            raise
        self.messages.start()

    def leave(self) -> None:
        """A channel has ended."""
        self._channels -= 1
        self._messages_linger.rest_later()

    async def _close_messages(self) -> None:
        await self.messages.stop()
        await self.authorizer.close()

    async def _watch_publication(self) -> None:
        while True:
            await asyncio.sleep(self.timings.publication_check)
            try:
                await self.check_publication()
            except psycopg.OperationalError as error:
                log.warning("checking the publication failed: %s", error)

    async def check_publication(self) -> None:
        """Subscribe everybody anew when the set of published tables has changed.

        Raises
        ------
        psycopg.OperationalError
            The database is down.
        """
        async with self._subscriptions.connection() as connection:
            found = await published_tables(connection)
        if found != self._published:
            self._published = found
            for subscriber in self.registry.subscribers():
                subscriber.subscribe()

    async def close(self) -> None:
        """Give up the slots and all connections; returns when the database may be dropped."""
        await asyncio.gather(self._changes_linger.stop(), self._messages_linger.stop())
