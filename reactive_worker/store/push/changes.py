"""A supervised Realtime subscription that never gives up and never lies about its health.

realtime-py gives up after five failed connections, dies with any exception in a callback, and goes deaf
when a channel is closed or joined twice. So it is used for one thing only: one socket, each channel joined
once. Everything else is done from outside: callbacks only enqueue, the client's own reconnecting is off, and
whenever anything is not as it must be the whole client is thrown away and a new one is built, with backoff,
for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.backoff import Backoff, spread
from reactive_worker.models import PushHealth, PushState

logger = logging.getLogger(__name__)

#: A refused join alone takes 5 s on the server; realtime-py resends a slow join and so kills its own channel.
JOIN_TIMEOUT = 30
#: The first subscription after a server start takes 1.2 to 1.7 s to become ready, retries up to 10 s.
READY_TIMEOUT = 30.0
#: Full jitter: a whole fleet loses its sockets in the same instant when a server restarts.
RECONNECT = Backoff(0.5, 30.0, jitter="full")
#: What the other side gets to answer a goodbye; a network that swallows never answers.
CLOSE_TIMEOUT = 5.0
#: A refusal is a matter of rights, and costs the whole socket 5 s on the server: no hurry to ask again.
REFUSED_PAUSE = 60.0
#: How often the client is looked at from outside, in case it died without calling anybody back.
WATCH_INTERVAL = 2.0

#: Sleeps between two tries; tests put another clock here, to live through long outages.
wait = asyncio.sleep

ChangeKind = Literal["INSERT", "UPDATE", "DELETE"]


@dataclass(frozen=True, slots=True)
class Binding:
    """What to hear: changes of one table, filtered on the server."""

    table: str
    event: ChangeKind
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change as Realtime told it. `record` is empty for DELETE."""

    table: str
    kind: str
    record: Mapping[str, Any]


class Link:
    """Keeps the channels of one socket joined for as long as it lives; which ones, subclasses say.

    Parameters
    ----------
    url, key:
        Project URL and API key, or credentials whose token may change: the server is told the new one.
    name:
        What log lines call it.
    on_ready:
        Called whenever the channels have become live (at first and after each rebuild): catch up now, for
        nothing said in between is repeated.
    on_health:
        Called with the new `PushHealth` on each change of state. A link by itself only knows ``connecting``
        and ``deaf`` (told by `mark_deaf`); ``healthy`` is for whoever hears its own probe: `mark_healthy`.
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        name: str,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_health: Callable[[PushHealth], None] = lambda health: None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/realtime/v1"
        self._credentials = Credentials.of(key)
        self._name = name
        self._on_ready = on_ready
        self._on_health = on_health
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self._broken: asyncio.Event | None = None
        self._reason = ""
        self._deaf_times = 0
        self.health = PushHealth(PushState.CONNECTING, datetime.now(UTC), "not started")
        #: How many times the channels became live.
        self.subscriptions = 0
        #: Whether they are now, as far as the client knows.
        self.is_live = False
        #: Why the server does not let us in; empty when it does, or has not been asked.
        self.refusal = ""
        self._refused = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The supervising task; it ends only by `stop`."""
        return self._task

    @property
    def reason(self) -> str:
        """Why the last client was thrown away; empty as long as none was."""
        return self._reason

    async def start(self) -> None:
        """Begin; returns at once, readiness is told through `on_ready`."""
        if self._task is None:
            self._ending = False
            self._task = asyncio.create_task(self._supervise(), name=self._name)

    async def stop(self) -> None:
        """Leave the channels, close the socket and wait until nothing is left of it; safe to repeat."""
        task = self._task
        if task is None:
            return
        if not self._ending:
            # Once only: a second cancellation would leave the socket half closed.
            self._ending = True
            task.cancel()
        await asyncio.wait([task])
        self._task = None
        if not task.cancelled():
            task.result()

    def mark_healthy(self, detail: str = "") -> None:
        """Tell the link that its owner has heard a probe of its own."""
        self._deaf_times = 0
        self._set_health(PushState.HEALTHY, detail)

    def mark_deaf(self, detail: str) -> None:
        """Tell the link that a probe was not heard: the client is thrown away and built anew."""
        self._deaf_times += 1
        self._set_health(PushState.DEAF, detail)
        self._break(detail)

    # -- what subclasses say ---------------------------------------------------------------------------------

    def _channels(self, client: AsyncRealtimeClient) -> list[AsyncRealtimeChannel]:
        """The channels of a new client, not yet joined."""
        raise NotImplementedError

    async def _join(self, channels: Sequence[AsyncRealtimeChannel], broken: asyncio.Event) -> None:
        """Join them; returns when all are live, or `broken` is set."""
        raise NotImplementedError

    # -- the life of a client --------------------------------------------------------------------------------

    def _set_health(self, state: PushState, detail: str) -> None:
        if state is self.health.state:
            return
        self.health = PushHealth(state, datetime.now(UTC), detail)
        level = logging.INFO if state is PushState.HEALTHY else logging.WARNING
        logger.log(level, "%s is %s%s", self._name, state.value, f": {detail}" if detail else "")
        self._on_health(self.health)

    def _break(self, reason: str) -> None:
        self._reason = reason
        if self._broken is not None:
            self._broken.set()

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._refused = True

    async def _supervise(self) -> None:
        failures = 0
        reported = ""
        while True:
            began = self.subscriptions
            self._refused = False
            try:
                await self._live_once()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a client or a server throws, we build anew
                self._reason = f"{type(error).__name__}: {redact(str(error))}"
            if self.subscriptions > began:
                failures, reported = 0, ""
            else:
                failures += 1
            # A deaf channel stays "deaf" until a probe is heard; everything else is "connecting".
            if self.health.state is PushState.HEALTHY:
                self._set_health(PushState.CONNECTING, self._reason)
            if self._reason != reported:
                reported = self._reason
                logger.warning("%s: %s; trying again until it works", self._name, self._reason)
            if not self._refused:
                self.refusal = ""
            pause = RECONNECT.delay(max(failures + 1, self._deaf_times))
            await wait(spread(REFUSED_PAUSE * 0.75, 1 / 3) if self.refusal else pause)

    async def _live_once(self) -> None:
        """Build a client, join, and return (or raise) when it is no longer good."""
        broken = self._broken = asyncio.Event()
        # The key opens the socket, the token decides what the channels may hear.
        client = AsyncRealtimeClient(
            self._url, self._credentials.apikey, auto_reconnect=False, timeout=JOIN_TIMEOUT
        )
        client.access_token = self._credentials.token()
        channels = self._channels(client)
        try:
            await client.connect()
            await self._join(channels, broken)
            if not broken.is_set():
                await self._watch(client, channels, broken)
        finally:
            self._broken = None
            self.is_live = False
            await _discard(client, channels)

    async def _watch(
        self, client: AsyncRealtimeClient, channels: Sequence[AsyncRealtimeChannel], broken: asyncio.Event
    ) -> None:
        self.subscriptions += 1
        self.is_live = True
        self._on_ready()
        while not broken.is_set():
            if not client.is_connected or not all(channel.is_joined for channel in channels):
                self._reason = "the client lost its connection or channel without saying so"
                return
            if (token := self._credentials.token()) != client.access_token:
                # Otherwise the server closes the channels when the old token expires.
                await client.set_auth(token)
            await _either(broken, timeout=WATCH_INTERVAL)

    def _on_status(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        if status is not RealtimeSubscribeStates.SUBSCRIBED:
            text = f": {redact(str(error))}" if error else ""
            self._break(f"channel {status.value}{text}")


class RealtimeLink(Link):
    """Hears changes of tables (postgres_changes) on one channel.

    Parameters
    ----------
    url, key, on_ready, on_health:
        As `Link` takes them.
    topic:
        Channel name; any.
    bindings:
        What to hear. Never the same binding twice: the server collapses them.
    on_change:
        Called in the event loop with every `Change`; an exception in it is logged and costs that change only.

    Example
    -------
    >>> link = RealtimeLink(url, key, "x", [Binding("events", "INSERT")], on_change=print)  # doctest: +SKIP
    >>> await link.start()  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        key: str | Credentials,
        topic: str,
        bindings: Sequence[Binding],
        *,
        on_change: Callable[[Change], None],
        on_ready: Callable[[], None] = lambda: None,
        on_health: Callable[[PushHealth], None] = lambda health: None,
    ) -> None:
        super().__init__(url, key, "realtime (changes)", on_ready=on_ready, on_health=on_health)
        self._topic = topic
        self._bindings = tuple(bindings)
        self._on_change = on_change

    def _channels(self, client: AsyncRealtimeClient) -> list[AsyncRealtimeChannel]:
        channel = client.channel(self._topic)
        for binding in self._bindings:
            channel.on_postgres_changes(
                cast("Any", binding.event),
                self._heard,
                table=binding.table,
                schema="public",
                filter=binding.filter,
            )
        return [channel]

    async def _join(self, channels: Sequence[AsyncRealtimeChannel], broken: asyncio.Event) -> None:
        ready = asyncio.Event()
        (channel,) = channels

        # on_system hears ok only; an error arrives as CHANNEL_ERROR through _on_status.
        def on_system(payload: Any) -> None:
            if self.is_live:
                # Subscribed anew, with another token: what the old one could not see was not told.
                self._on_ready()
            ready.set()

        channel.on_system(on_system)
        await channel.subscribe(self._on_status)
        # Changes flow from the system message on, not from the join reply.
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT
        while not ready.is_set() and not broken.is_set():
            if asyncio.get_running_loop().time() > deadline:
                self._break(f"joined, but not told that it is subscribed within {READY_TIMEOUT:g} s")
                return
            await _either(ready, broken, timeout=1.0)

    def _heard(self, payload: Any) -> None:
        # An exception here would end realtime-py's receive loop for good, and nobody would be told.
        try:
            data = payload["data"]
            if data.get("errors"):
                logger.warning("realtime reports %s for table %s", data["errors"], data.get("table"))
            change = Change(
                table=str(data["table"]), kind=_kind(data["type"]), record=data.get("record") or {}
            )
            self._on_change(change)
        except Exception:
            logger.exception("a change told by realtime could not be used; the sweep will find its row")


def _kind(value: Any) -> str:
    return str(getattr(value, "value", value))


async def _either(*events: asyncio.Event, timeout: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _discard(client: AsyncRealtimeClient, channels: Sequence[AsyncRealtimeChannel]) -> None:
    """Close a client whatever state it is in, and end the socket, tasks and timers it would leave behind."""
    for channel in channels:
        channel.subscribe_callback = None
        channel.rejoin_timer.reset()
        channel.join_push.destroy()
    # Taken now: close() forgets them before it waits for the other side to say goodbye.
    internals = cast("Any", client)
    socket = internals._ws_connection
    tasks = [task for task in (internals._listen_task, internals._heartbeat_task) if task is not None]
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await client.close()
    except Exception as error:  # noqa: BLE001 - it is being thrown away; the next one matters
        logger.debug("closing a realtime client: %s", type(error).__name__)
    finally:
        # A close that was given up, or interrupted by a stop, leaves all of it open.
        for task in tasks:
            task.cancel()
        if socket is not None:
            socket.transport.abort()
