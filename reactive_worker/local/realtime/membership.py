"""What a channel exchanges with the members of its room: broadcasts, messages of the database, presence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol, cast

import psycopg

from reactive_worker.local.realtime.authorization import Asker, AuthorizationError, ChannelRights
from reactive_worker.local.realtime.broadcast import LARGEST_PAYLOAD, Payload
from reactive_worker.local.realtime.core import Core
from reactive_worker.local.realtime.joins import Join, JoinRefusedError
from reactive_worker.local.realtime.messages import Replayed
from reactive_worker.local.realtime.presence import CallLimit, Metas
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import (
    Inbound,
    Raw,
    UserBroadcast,
    Version,
    dumps,
    encode_binary,
    fits_binary,
    is_json,
    user_broadcast_payload,
)
from reactive_worker.local.realtime.tokens import Token

log = logging.getLogger(__name__)


class Owner(Protocol):
    """The channel, as far as its membership needs it."""

    @property
    def version(self) -> Version: ...
    @property
    def open(self) -> bool: ...

    def push(self, event: str, payload: Any) -> None:
        """Send a frame that is the channel's own."""
        ...

    def pass_on(self, event: str, payload: Any) -> None:
        """Send a frame that was fanned out to many."""
        ...

    def pass_on_binary(self, data: bytes) -> None:
        """Likewise, a binary one."""
        ...

    def reply(self, frame: Inbound, response: Any, *, status: str = "ok") -> None:
        """Answer a frame of the client."""
        ...

    def system(self, status: str, message: str, *, extension: str) -> None:
        """Send a `system` message."""
        ...

    def close(self) -> None:
        """End the channel, in order."""
        ...


class Membership:
    """One channel's place in its room.

    Parameters
    ----------
    owner:
        The channel.
    topic:
        With prefix.
    join:
        What was asked for.
    core:
        Shared state of the server.
    headers:
        Those of the client that policies may read, as JSON.
    """

    def __init__(self, owner: Owner, topic: str, join: Join, core: Core, headers: str) -> None:
        self._owner = owner
        self._room = Room(topic, join.private)
        self._join = join
        self._core = core
        asker = Asker(join.token, join.name, headers) if join.private else None
        self._rights = ChannelRights(core.authorizer, asker)
        self._replayed: dict[str, Replayed] = {}
        #: Broadcasts that came before the join was answered; None from then on.
        self._early: list[Payload] | None = []
        self._announcing: asyncio.Task[None] | None = None
        self._presence_calls = CallLimit()
        self._watches_presence = False

    async def enter(self) -> None:
        """Ask the policies whether it may begin, and fetch what it missed; before the join is answered.

        Raises
        ------
        JoinRefusedError
            With the reason to answer.
        """
        try:
            if self._join.private:
                await self._core.messages.prepared()
            if not await self._rights.ask():
                raise JoinRefusedError(f"Unauthorized: {self._no_permission()}")
            if self._join.private and not self._core.faults.stream_gap:
                await self._await_stream()
            # From here on it receives: what comes before the join is answered waits for the answer.
            self._core.broadcasts.join(self._room, self)
            if self._join.replay is not None and self._rights.reads.broadcast:
                missed = await self._core.messages.replay(self._join.name, self._join.replay)
                self._replayed = {message.id: message for message in missed}
        except AuthorizationError as error:
            raise JoinRefusedError(str(error)) from error
        except psycopg.Error as error:
            problem = error.diag.message_primary or str(error)
            raise JoinRefusedError(f"UnableToReplayMessages: {problem}") from error

    async def _await_stream(self) -> None:
        """Wait until what is sent after the join was answered will arrive: a private channel is there for it.

        The real server does not wait, nor do public channels, nor does anybody while `stream_gap` is set.
        """
        if not await self._core.messages.wait(self._core.timings.messages_patience):
            log.warning(
                "messages of the database are not streamed yet: the join of %s no longer waits for them",
                self._room.topic,
            )

    def _no_permission(self) -> str:
        return f"You do not have permissions to read from this Channel topic: {self._join.name}"

    def start(self) -> None:
        """Give the client what it missed, and who is there; called when the join has been answered."""
        for message in self._replayed.values():
            meta = {"id": message.id, "replayed": True}
            payload = {"event": message.event, "meta": meta, "payload": message.payload, "type": "broadcast"}
            self._owner.push("broadcast", payload)
        early, self._early = self._early, None
        for received in early or ():
            self.receive(received)
        if self._join.presence_enabled and self._rights.reads.presence:
            self._watch_presence()
            self._owner.push("presence_state", self._core.presences.state(self._room))
        if self._join.replication_ready:
            self._announcing = asyncio.create_task(self._announce(), name=f"announce {self._room.topic}")

    async def _announce(self) -> None:
        """Tell when messages of the database flow."""
        if await self._core.messages.wait(self._core.timings.replication_ready):
            self._owner.system("ok", "Replication connection established", extension="system")
        else:
            self._owner.close()

    def end(self) -> None:
        """Leave the room."""
        if self._announcing is not None:
            self._announcing.cancel()
        self._core.broadcasts.leave(self._room, self)
        self._core.presences.leave(self._room, self)

    async def renew(self, token: Token) -> None:
        """Ask the policies again for a new token; a member that may no longer read is told, and is out."""
        try:
            problem = "" if await self._rights.ask(token) else self._no_permission()
        except AuthorizationError as error:
            problem = str(error)
        if problem and self._owner.open:
            self._owner.system("error", problem, extension="system")
            self._owner.close()

    # -- what others tell it -----------------------------------------------------------------------------

    def receive(self, payload: Payload) -> None:
        """Pass a broadcast on to the client."""
        if not self._rights.reads.broadcast:
            return
        if self._early is not None:
            self._early.append(payload)
        elif not isinstance(payload, UserBroadcast):
            self._owner.pass_on("broadcast", payload)
        elif payload.message_id in self._replayed:
            return
        elif self._owner.version == "2.0.0" and fits_binary(self._room.topic, payload.event):
            self._owner.pass_on_binary(encode_binary(self._room.topic, payload))
        elif payload.is_json:
            # Version 1.0.0 has no binary frames: bytes that are not JSON do not reach it at all.
            self._owner.pass_on("broadcast", user_broadcast_payload(payload))

    def overload(self) -> None:
        """More messages pass than the project may have: end, and say why."""
        self._owner.system("error", "Too many messages per second", extension="system")
        self._owner.close()

    def presence_diff(self, joins: Metas, leaves: Metas) -> None:
        """Pass arrivals and departures on to the client."""
        if self._rights.reads.presence:
            self._owner.pass_on("presence_diff", {"joins": joins, "leaves": leaves})

    # -- what the client tells it ------------------------------------------------------------------------

    async def broadcast(self, frame: Inbound) -> None:
        """Take a message of the client for the others."""
        try:
            allowed = (await self._rights.writes()).broadcast
        except AuthorizationError:
            allowed = False
        # A denial is silent: no answer either, where one was asked for.
        if not allowed or not self._owner.open:
            return
        message: Payload
        if isinstance(frame.payload, UserBroadcast):
            message, size = frame.payload, len(frame.payload.data)
        else:
            message = Raw(dumps(frame.payload))
            size = len(message.text.encode())
        if size > LARGEST_PAYLOAD:
            if self._join.broadcast_ack:
                self._owner.reply(frame, "payload_size_exceeded", status="error")
            return
        if isinstance(message, UserBroadcast) and message.is_json and not is_json(message.data):
            return
        self._core.broadcasts.publish(
            self._room, message, leave_out=None if self._join.broadcast_self else self
        )
        if self._join.broadcast_ack:
            self._owner.reply(frame, {})

    async def presence(self, frame: Inbound) -> None:
        """Take what the client says of itself."""
        if self._presence_calls.exceeded():
            self._owner.system("error", "Client presence rate limit exceeded", extension="system")
            self._owner.close()
            return
        fields = cast("Mapping[str, Any]", frame.payload if isinstance(frame.payload, Mapping) else {})
        event = fields.get("event")
        if event == "track":
            meta: Any = fields.get("payload")
            await self._track(frame, cast("Mapping[str, Any]", meta if isinstance(meta, Mapping) else {}))
        elif event == "untrack":
            self._owner.reply(frame, {})
            self._core.presences.untrack(self._room, self)

    async def _track(self, frame: Inbound, meta: Mapping[str, Any]) -> None:
        try:
            allowed = (await self._rights.writes()).presence
        except AuthorizationError:
            allowed = False
        if not self._owner.open:
            return
        if not allowed:
            self._owner.reply(frame, {}, status="error")
            return
        # Tracking turns presence on, also where the join had it off.
        self._watch_presence()
        self._owner.reply(frame, {})
        self._core.presences.track(self._room, self, self._join.presence_key, meta)

    def _watch_presence(self) -> None:
        if not self._watches_presence:
            self._watches_presence = True
            self._core.presences.watch(self._room, self)
