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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.backoff import Backoff, spread
from reactive_worker.models import PushHealth, PushState
from reactive_worker.store.duty import Duty
from reactive_worker.store.telemetry import (
    Emit,
    LinkHealthy,
    LinkRebuilt,
    LinkUnhealthy,
    NotificationUnusable,
    log_line,
)

logger = logging.getLogger(__name__)

#: A refused join alone takes 5 s on the server; realtime-py resends a slow join and so kills its own channel.
JOIN_TIMEOUT = 30
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


class Link(Duty):
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
        super().__init__(name)
        self._url = f"{url.rstrip('/')}/realtime/v1"
        self._credentials = Credentials.of(key)
        self._on_ready = on_ready
        self._on_health = on_health
        #: Where its telemetry goes: a log line, unless its owner says otherwise.
        self.emit: Emit = log_line
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
        # Clients in a row that never became live; what was reported last, so that it is reported once.
        self._failures = 0
        self._reported = ""

    @property
    def reason(self) -> str:
        """Why the last client was thrown away; empty as long as none was."""
        return self._reason

    def mark_healthy(self, detail: str = "") -> None:
        """Tell the link that its owner has heard a probe of its own."""
        self._deaf_times = 0
        self._set_health(PushState.HEALTHY, detail)

    def mark_deaf(self, detail: str) -> None:
        """Tell the link that a probe was not heard: the client is thrown away and built anew."""
        self._deaf_times += 1
        self._set_health(PushState.DEAF, detail)
        self._break(detail)

    def _use(self, notification: Callable[[], None]) -> None:
        # An exception here would end realtime-py's receive loop for good, and nobody would be told.
        try:
            notification()
        except Exception as error:  # noqa: BLE001 - whatever was sent to us, and whatever our owner makes of it
            self.emit(NotificationUnusable(self.name, f"{type(error).__name__}: {redact(str(error))}"))

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
        if state is PushState.HEALTHY:
            self.emit(LinkHealthy(self.name, detail))
        else:
            self.emit(LinkUnhealthy(self.name, state.value, detail))
        self._on_health(self.health)

    def _break(self, reason: str) -> None:
        self._reason = reason
        if self._broken is not None:
            self._broken.set()

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._refused = True

    async def turn(self) -> float:
        """One life of a client: build it, join, and stay until it is no longer good."""
        began = self.subscriptions
        self._refused = False
        try:
            await self._live_once()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client or a server throws, we build anew
            self._reason = f"{type(error).__name__}: {redact(str(error))}"
        if self.subscriptions > began:
            self._failures, self._reported = 0, ""
        else:
            self._failures += 1
        # A deaf channel stays "deaf" until a probe is heard; everything else is "connecting".
        if self.health.state is PushState.HEALTHY:
            self._set_health(PushState.CONNECTING, self._reason)
        if self._reason != self._reported:
            self._reported = self._reason
            self.emit(LinkRebuilt(self.name, self._reason))
        if not self._refused:
            self.refusal = ""
        if self.refusal:
            return spread(REFUSED_PAUSE * 0.75, 1 / 3)
        return RECONNECT.delay(max(self._failures + 1, self._deaf_times))

    async def rest(self, seconds: float | None) -> None:
        """Wait for `seconds`."""
        await wait(seconds or 0.0)

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
            await either(broken, timeout=WATCH_INTERVAL)

    def _on_status(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        if status is not RealtimeSubscribeStates.SUBSCRIBED:
            text = f": {redact(str(error))}" if error else ""
            self._break(f"channel {status.value}{text}")


async def either(*events: asyncio.Event, timeout: float) -> None:
    """Wait for the first of these, `timeout` s at most."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _discard(client: AsyncRealtimeClient, channels: Sequence[AsyncRealtimeChannel]) -> None:
    """Close a client whatever state it is in, and end the socket, tasks and timers it would leave behind.

    The only place that knows realtime-py from inside: `subscribe_callback`, `rejoin_timer`, `join_push`,
    `_ws_connection`, `_listen_task`, `_heartbeat_task`; checked with 2.34.1, the oldest we allow.
    """
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
