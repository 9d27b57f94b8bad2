"""One joined topic of one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import psycopg

from reactive_worker.local.realtime.authorization import Asker, AuthorizationError, ChannelRights
from reactive_worker.local.realtime.bindings import BindingError, echo, read_binding
from reactive_worker.local.realtime.broadcast import LARGEST_PAYLOAD, Payload
from reactive_worker.local.realtime.core import Core
from reactive_worker.local.realtime.joins import Join, JoinRefusedError
from reactive_worker.local.realtime.linger import StoppedError
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
from reactive_worker.local.realtime.tokens import Token, TokenError, expired, verify


class Outlet(Protocol):
    """The socket, as far as a channel needs it."""

    @property
    def version(self) -> Version: ...

    def push(
        self, topic: str, event: str, payload: Any, *, ref: str | None = None, join_ref: str | None = None
    ) -> None:
        """Send a frame, after everything that waits to be sent."""
        ...

    def push_binary(self, data: bytes) -> None:
        """Likewise, a binary frame."""
        ...

    def forget(self, channel: Channel) -> None:
        """The channel has ended."""
        ...


class Channel:
    """A topic a client has joined.

    Parameters
    ----------
    socket:
        Where its frames go.
    topic:
        With prefix.
    join_ref:
        Reference of the join, which all later frames of the channel carry.
    join:
        What was asked for.
    core:
        Shared state of the server.
    headers:
        Those of the client that policies may read, as JSON.
    """

    def __init__(
        self,
        socket: Outlet,
        topic: str,
        join_ref: str | None,
        join: Join,
        core: Core,
        headers: str = "{}",
    ) -> None:
        self.topic = topic
        self._room = Room(topic, join.private)
        self.join_ref = join_ref
        self._socket = socket
        self._join = join
        self._core = core
        self._token = join.token
        asker = Asker(join.token, join.name, headers) if join.private else None
        self._rights = ChannelRights(core.authorizer, asker)
        self._replayed: dict[str, Replayed] = {}
        #: Broadcasts that came before the join was answered; None from then on.
        self._early: list[Payload] | None = []
        self._announcing: asyncio.Task[None] | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._token_timer: asyncio.TimerHandle | None = None
        self._presence_calls = CallLimit()
        self._watches_presence = False
        self._open = True

    async def enter(self) -> None:
        """Ask the policies whether it may begin, and fetch what it missed; before the join is answered.

        Raises
        ------
        JoinRefusedError
            With the reason to answer.
        """
        try:
            await self._core.enter(private=self._join.private)
        except StoppedError:
            raise JoinRefusedError("RealtimeRestarting: Realtime is restarting, please standby") from None
        try:
            if not await self._rights.ask():
                raise JoinRefusedError(f"Unauthorized: {self._no_permission()}")
            # From here on it receives: what comes before the join is answered waits for the answer.
            self._core.broadcasts.join(self._room, self)
            if self._join.replay is not None and self._rights.reads.broadcast:
                missed = await self._core.messages.replay(self._join.name, self._join.replay)
                self._replayed = {message.id: message for message in missed}
        except AuthorizationError as error:
            self.end()
            raise JoinRefusedError(str(error)) from error
        except psycopg.Error as error:
            self.end()
            problem = error.diag.message_primary or str(error)
            raise JoinRefusedError(f"UnableToReplayMessages: {problem}") from error
        except BaseException:
            self.end()
            raise

    def _no_permission(self) -> str:
        return f"You do not have permissions to read from this Channel topic: {self._join.name}"

    def reply_to_join(self) -> dict[str, Any]:
        """The join's reply: its bindings with their ids."""
        return {"postgres_changes": [echo(binding) for binding in self._join.bindings]}

    def start(self) -> None:
        """Begin to receive; called when the join has been answered."""
        for message in self._replayed.values():
            meta = {"id": message.id, "replayed": True}
            payload = {"event": message.event, "meta": meta, "payload": message.payload, "type": "broadcast"}
            self._socket.push(self.topic, "broadcast", payload, join_ref=self.join_ref)
        early, self._early = self._early, None
        for received in early or ():
            self.receive(received)
        if self._join.presence_enabled and self._rights.reads.presence:
            self._watch_presence()
            state = self._core.presences.state(self._room)
            self._socket.push(self.topic, "presence_state", state, join_ref=self.join_ref)
        if self._join.replication_ready:
            self._announcing = asyncio.create_task(self._announce(), name=f"announce {self.topic}")
        self._watch_token()
        self.subscribe()

    def subscribe(self) -> None:
        """Put the bindings in force, with the token of now; ends with a `system` message."""
        self._subscribe_after(0)

    def _subscribe_after(self, delay: float) -> None:
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._join.bindings:
            self._subscribing = asyncio.create_task(self._subscribe(delay), name=f"subscribe {self.topic}")

    async def _subscribe(self, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            bindings = [read_binding(parameters) for parameters in self._join.bindings]
            await self._core.subscribe(self, bindings, self._token)
        except BindingError as error:
            # One bad binding makes the whole channel deaf, the good ones too.
            self._core.unsubscribe(self)
            self._system("error", str(error))
        else:
            self._system("ok", "Subscribed to PostgreSQL")

    async def _announce(self) -> None:
        """Tell when messages of the database flow."""
        if await self._core.messages.wait(self._core.timings.replication_ready):
            self._system("ok", "Replication connection established", extension="system")
        else:
            self.close()

    def _system(self, status: str, message: str, *, extension: str = "postgres_changes") -> None:
        payload = {"channel": self._join.name, "extension": extension, "message": message, "status": status}
        self._socket.push(self.topic, "system", payload, join_ref=self.join_ref)

    # -- what the server side tells it -------------------------------------------------------------------

    def deliver(self, event: str, ids: Sequence[int], data: str) -> None:
        """Pass a change on to the client."""
        if self._join.configured:
            payload = Raw(f'{{"data":{data},"ids":{dumps(list(ids))}}}')
            self._socket.push(self.topic, "postgres_changes", payload)
        else:
            self._socket.push(self.topic, event, Raw(data))

    def receive(self, payload: Payload) -> None:
        """Pass a broadcast on to the client."""
        if not self._rights.reads.broadcast:
            return
        if self._early is not None:
            self._early.append(payload)
        elif not isinstance(payload, UserBroadcast):
            self._socket.push(self.topic, "broadcast", payload)
        elif payload.message_id in self._replayed:
            return
        elif self._socket.version == "2.0.0" and fits_binary(self.topic, payload.event):
            self._socket.push_binary(encode_binary(self.topic, payload))
        elif payload.is_json:
            # Version 1.0.0 has no binary frames: bytes that are not JSON do not reach it at all.
            self._socket.push(self.topic, "broadcast", user_broadcast_payload(payload))

    def overload(self) -> None:
        """More messages pass than the project may have: end, and say why."""
        self._system("error", "Too many messages per second", extension="system")
        self.close()

    def presence_diff(self, joins: Metas, leaves: Metas) -> None:
        """Pass arrivals and departures on to the client."""
        if not self._rights.reads.presence:
            return
        self._socket.push(self.topic, "presence_diff", {"joins": joins, "leaves": leaves})

    def close(self) -> None:
        """End it and tell the client that it ended in order."""
        if self._open:
            self.end()
            self._socket.push(self.topic, "phx_close", {}, ref=self.join_ref, join_ref=self.join_ref)

    def crash(self) -> None:
        """End it as if its process had crashed."""
        if self._open:
            self.end()
            self._socket.push(self.topic, "phx_error", {}, ref=self.join_ref, join_ref=self.join_ref)

    def fail(self, message: str) -> None:
        """Report a database subscription that failed: the channel stays joined, and is deaf from now on."""
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._core.unsubscribe(self)
        self._system("error", message)

    def end(self) -> None:
        """Stop receiving, without a word."""
        if not self._open:
            return
        self._open = False
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._token_timer is not None:
            self._token_timer.cancel()
        if self._announcing is not None:
            self._announcing.cancel()
        self._core.unsubscribe(self)
        self._core.broadcasts.leave(self._room, self)
        self._core.presences.leave(self._room, self)
        self._core.leave()
        self._socket.forget(self)

    # -- what the client tells it ------------------------------------------------------------------------

    async def handle(self, frame: Inbound) -> None:
        """Take a frame that is not a join. Unknown events get no answer."""
        match frame.event:
            case "phx_leave":
                self._reply(frame, {})
                self.close()
            case "access_token":
                await self._take_token(frame.payload)
            case "broadcast":
                await self._broadcast(frame)
            case "presence":
                await self._presence(frame)
            case _:
                return

    def _reply(self, frame: Inbound, response: Any, *, status: str = "ok") -> None:
        payload = {"response": response, "status": status}
        self._socket.push(self.topic, "phx_reply", payload, ref=frame.ref, join_ref=self.join_ref)

    async def _broadcast(self, frame: Inbound) -> None:
        try:
            allowed = (await self._rights.writes()).broadcast
        except AuthorizationError:
            allowed = False
        # A denial is silent: no answer either, where one was asked for.
        if not allowed or not self._open:
            return
        message: Payload
        if isinstance(frame.payload, UserBroadcast):
            message, size = frame.payload, len(frame.payload.data)
        else:
            message = Raw(dumps(frame.payload))
            size = len(message.text.encode())
        if size > LARGEST_PAYLOAD:
            if self._join.broadcast_ack:
                self._reply(frame, "payload_size_exceeded", status="error")
            return
        if isinstance(message, UserBroadcast) and message.is_json and not is_json(message.data):
            return
        self._core.broadcasts.publish(
            self._room, message, leave_out=None if self._join.broadcast_self else self
        )
        if self._join.broadcast_ack:
            self._reply(frame, {})

    async def _presence(self, frame: Inbound) -> None:
        if self._presence_calls.exceeded():
            self._system("error", "Client presence rate limit exceeded", extension="system")
            self.close()
            return
        fields = cast("Mapping[str, Any]", frame.payload if isinstance(frame.payload, Mapping) else {})
        event = fields.get("event")
        if event == "track":
            meta: Any = fields.get("payload")
            await self._track(frame, cast("Mapping[str, Any]", meta if isinstance(meta, Mapping) else {}))
        elif event == "untrack":
            self._reply(frame, {})
            self._core.presences.untrack(self._room, self)

    async def _track(self, frame: Inbound, meta: Mapping[str, Any]) -> None:
        try:
            allowed = (await self._rights.writes()).presence
        except AuthorizationError:
            allowed = False
        if not self._open:
            return
        if not allowed:
            self._reply(frame, {}, status="error")
            return
        # Tracking turns presence on, also where the join had it off.
        self._watch_presence()
        self._reply(frame, {})
        self._core.presences.track(self._room, self, self._join.presence_key, meta)

    def _watch_presence(self) -> None:
        if not self._watches_presence:
            self._watches_presence = True
            self._core.presences.watch(self._room, self)

    # -- its token ---------------------------------------------------------------------------------------

    async def _take_token(self, payload: Any) -> None:
        text: Any = (
            cast("Mapping[str, Any]", payload).get("access_token") if isinstance(payload, Mapping) else None
        )
        if not isinstance(text, str) or text.startswith("sb_") or text == self._token.text:
            return
        token = self._verified(text)
        if token is not None:
            self._token = token
            self._watch_token()
            if not await self._may_stay(token):
                return
            # Until then changes are judged by the old token, as on the real server.
            self._subscribe_after(self._core.timings.token_refresh_delay)

    async def _may_stay(self, token: Token) -> bool:
        """Ask the policies again; a member that may no longer read is told, and is out."""
        try:
            problem = "" if await self._rights.ask(token) else self._no_permission()
        except AuthorizationError as error:
            problem = str(error)
        if problem and self._open:
            self._system("error", problem, extension="system")
            self.close()
        return self._open

    def _verified(self, text: str) -> Token | None:
        try:
            return verify(self._core.keys, text)
        except TokenError as error:
            self._refuse_token(error)
            return None

    def _refuse_token(self, error: TokenError) -> None:
        self._system("error", error.system_text, extension="system")
        self.close()

    def _watch_token(self) -> None:
        if self._token_timer is not None:
            self._token_timer.cancel()
        wait = max(0.0, min(self._core.timings.token_check, self._token.remaining()))
        self._token_timer = asyncio.get_running_loop().call_later(wait, self._check_token)

    def _check_token(self) -> None:
        left = self._token.remaining()
        if left <= 0:
            self._refuse_token(expired(-left))
        else:
            self._watch_token()
