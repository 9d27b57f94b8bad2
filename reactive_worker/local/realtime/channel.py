"""One joined topic of one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from reactive_worker.local.realtime.bindings import BindingError, echo, read_binding
from reactive_worker.local.realtime.core import Core
from reactive_worker.local.realtime.joins import Join, JoinRefusedError
from reactive_worker.local.realtime.linger import StoppedError
from reactive_worker.local.realtime.membership import Membership
from reactive_worker.local.realtime.serializer import Inbound, Raw, Version, dumps
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
        self.join_ref = join_ref
        self._socket = socket
        self._join = join
        self._core = core
        self._token = join.token
        self._membership = Membership(self, topic, join, core, headers)
        self._subscribing: asyncio.Task[None] | None = None
        self._token_timer: asyncio.TimerHandle | None = None
        #: Until it has ended, for whatever reason.
        self.open = True

    @property
    def version(self) -> Version:
        """Protocol version of its socket."""
        return self._socket.version

    async def enter(self) -> None:
        """Ask the policies whether it may begin, and fetch what it missed; before the join is answered.

        Raises
        ------
        JoinRefusedError
            With the reason to answer.
        """
        try:
            await self._core.enter()
        except StoppedError:
            raise JoinRefusedError("RealtimeRestarting: Realtime is restarting, please standby") from None
        try:
            await self._membership.enter()
        except BaseException:
            self.end()
            raise

    def reply_to_join(self) -> dict[str, Any]:
        """The join's reply: its bindings with their ids."""
        return {"postgres_changes": [echo(binding) for binding in self._join.bindings]}

    def start(self) -> None:
        """Begin to receive; called when the join has been answered."""
        self._membership.start()
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
            self.system("error", str(error))
        else:
            self.system("ok", "Subscribed to PostgreSQL")

    # -- frames out --------------------------------------------------------------------------------------

    def push(self, event: str, payload: Any) -> None:
        """Send a frame that is the channel's own."""
        self._socket.push(self.topic, event, payload, join_ref=self.join_ref)

    def pass_on(self, event: str, payload: Any) -> None:
        """Send a frame that was fanned out to many: it does not name the join."""
        self._socket.push(self.topic, event, payload)

    def pass_on_binary(self, data: bytes) -> None:
        """Likewise, a binary one."""
        self._socket.push_binary(data)

    def reply(self, frame: Inbound, response: Any, *, status: str = "ok") -> None:
        """Answer a frame of the client."""
        payload = {"response": response, "status": status}
        self._socket.push(self.topic, "phx_reply", payload, ref=frame.ref, join_ref=self.join_ref)

    def system(self, status: str, message: str, *, extension: str = "postgres_changes") -> None:
        """Send a `system` message."""
        self.push(
            "system",
            {"channel": self._join.name, "extension": extension, "message": message, "status": status},
        )

    # -- what the server side tells it -------------------------------------------------------------------

    def deliver(self, event: str, ids: Sequence[int], data: str) -> None:
        """Pass a change on to the client."""
        if self._join.configured:
            self.pass_on("postgres_changes", Raw(f'{{"data":{data},"ids":{dumps(list(ids))}}}'))
        else:
            self.pass_on(event, Raw(data))

    def close(self) -> None:
        """End it and tell the client that it ended in order."""
        if self.open:
            self.end()
            self._socket.push(self.topic, "phx_close", {}, ref=self.join_ref, join_ref=self.join_ref)

    def crash(self) -> None:
        """End it as if its process had crashed."""
        if self.open:
            self.end()
            self._socket.push(self.topic, "phx_error", {}, ref=self.join_ref, join_ref=self.join_ref)

    def fail(self, message: str) -> None:
        """Report a database subscription that failed: the channel stays joined, and is deaf from now on."""
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._core.unsubscribe(self)
        self.system("error", message)

    def end(self) -> None:
        """Stop receiving, without a word."""
        if not self.open:
            return
        self.open = False
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._token_timer is not None:
            self._token_timer.cancel()
        self._core.unsubscribe(self)
        self._membership.end()
        self._core.leave()
        self._socket.forget(self)

    # -- what the client tells it ------------------------------------------------------------------------

    async def handle(self, frame: Inbound) -> None:
        """Take a frame that is not a join. Unknown events get no answer."""
        match frame.event:
            case "phx_leave":
                self.reply(frame, {})
                self.close()
            case "access_token":
                await self._take_token(frame.payload)
            case "broadcast":
                await self._membership.broadcast(frame)
            case "presence":
                await self._membership.presence(frame)
            case _:
                return

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
            await self._membership.renew(token)
            if self.open:
                # Until then changes are judged by the old token, as on the real server.
                self._subscribe_after(self._core.timings.token_refresh_delay)

    def _verified(self, text: str) -> Token | None:
        try:
            return verify(self._core.keys, text)
        except TokenError as error:
            self._refuse_token(error)
            return None

    def _refuse_token(self, error: TokenError) -> None:
        self.system("error", error.system_text, extension="system")
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
