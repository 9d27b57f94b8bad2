"""One WebSocket: its mailbox, its channels, and the rules of the Phoenix protocol.

As in the real server, one process serves a socket: frames from the client and frames to it pass through one
mailbox, in order. So while a join is being refused, which takes five seconds, nothing else on it moves.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from reactive_worker.local.faults import ABNORMAL_CLOSE, FaultAction
from reactive_worker.local.realtime.authorization import client_headers
from reactive_worker.local.realtime.channel import Channel
from reactive_worker.local.realtime.core import Core
from reactive_worker.local.realtime.joins import TOPIC_PREFIX, JoinRefusedError, read_join
from reactive_worker.local.realtime.serializer import Inbound, Version, decode_binary, decode_text, encode
from reactive_worker.local.realtime.transport import last_ping

log = logging.getLogger(__name__)

#: Largest frame taken from a client, in bytes.
LARGEST_FRAME = 5_000_000
#: Channels a socket may hold.
MOST_CHANNELS = 100
#: Frames from a client that wait before no more are read.
_MOST_UNHANDLED = 256
#: Bytes waiting for a client that does not read, before it is given up.
_MOST_UNSENT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Outbound:
    frame: str | bytes


class Socket:
    """A client's connection, from the accepted handshake to its end.

    Parameters
    ----------
    websocket:
        Accepted.
    version:
        Protocol version agreed on.
    token:
        The JWT the socket was opened with.
    core:
        Shared state of the server.
    """

    def __init__(self, websocket: WebSocket, version: Version, token: str, core: Core) -> None:
        self.version: Version = version
        self._websocket = websocket
        self._token = token
        self._core = core
        self._channels: dict[str, Channel] = {}
        self._mailbox: asyncio.Queue[Inbound | _Outbound] = asyncio.Queue()
        self._unhandled = asyncio.Semaphore(_MOST_UNHANDLED)
        #: Bytes waiting to be sent.
        self.unsent = 0
        #: It was waited for in vain: changes no longer wait for it.
        self.stalled = False
        #: Set when all is over.
        self.ended = asyncio.Event()
        self._closing: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve the client until either side ends the connection."""
        reading = asyncio.create_task(self._read(), name="realtime-socket-read")
        working = asyncio.create_task(self._work(), name="realtime-socket-work")
        code: int | None = None
        try:
            await asyncio.wait({reading, working, self._closing}, return_when=asyncio.FIRST_COMPLETED)
            if self._closing.done():
                code = self._closing.result()
            elif reading.done():
                code = reading.result()
            else:
                code = working.result()
        finally:
            reading.cancel()
            working.cancel()
            await asyncio.gather(reading, working, return_exceptions=True)
            for channel in tuple(self._channels.values()):
                channel.end()
            # Without a close frame (code 1006) the server just cuts the connection when this returns.
            if code is not None and code != ABNORMAL_CLOSE:
                await self._send_close(code)
            self.ended.set()

    def close(self, code: int) -> None:
        """End the connection with a close code; 1006 cuts it without one."""
        if not self._closing.done():
            self._closing.set_result(code)

    def apply(self, action: FaultAction) -> None:
        """Misbehave, once."""
        if action.name == "drop_sockets":
            self.close(action.code)
            return
        for channel in tuple(self._channels.values()):
            match action.name:
                case "phx_close_all":
                    channel.close()
                case "phx_error_all":
                    channel.crash()
                case "system_error_all":
                    channel.fail(action.message)

    async def _send_close(self, code: int) -> None:
        try:
            await self._websocket.close(code)
        except (RuntimeError, OSError, WebSocketDisconnect) as error:
            log.debug("the client was gone before the close frame: %s", error)

    # -- frames out --------------------------------------------------------------------------------------

    def push(
        self, topic: str, event: str, payload: Any, *, ref: str | None = None, join_ref: str | None = None
    ) -> None:
        """Send a frame, after everything that waits to be sent."""
        self._put(encode(self.version, topic, event, payload, ref=ref, join_ref=join_ref))

    def push_binary(self, data: bytes) -> None:
        """Send a binary frame, after everything that waits to be sent."""
        self._put(data)

    def _put(self, frame: str | bytes) -> None:
        if self._closing.done():
            return
        self.unsent += len(frame)
        if self.unsent > _MOST_UNSENT:
            log.warning("a Realtime client does not read: %d bytes are waiting, closing it", self.unsent)
            self.close(1011)
            return
        self._mailbox.put_nowait(_Outbound(frame))

    def forget(self, channel: Channel) -> None:
        """A channel has ended."""
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]

    async def _send(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            await self._websocket.send_text(frame)
        else:
            await self._websocket.send_bytes(frame)

    async def _answer(
        self, frame: Inbound, response: Any, *, status: str = "ok", join_ref: str | None = None
    ) -> None:
        payload = {"response": response, "status": status}
        await self._send(
            encode(self.version, frame.topic, "phx_reply", payload, ref=frame.ref, join_ref=join_ref)
        )

    # -- frames in ---------------------------------------------------------------------------------------

    async def _read(self) -> int | None:
        """Fill the mailbox; returns the code to close the socket with, None if the client left."""
        while True:
            message = await self._receive()
            if message is None:
                return 1000
            if message["type"] == "websocket.disconnect":
                return None
            text, data = message.get("text"), message.get("bytes")
            size = len(text.encode()) if text is not None else len(data or b"")
            if size > LARGEST_FRAME:
                return 1009
            frame = decode_text(self.version, text) if text is not None else None
            if data is not None and self.version == "2.0.0":
                frame = decode_binary(data)
            if frame is not None:
                await self._unhandled.acquire()
                self._mailbox.put_nowait(frame)

    async def _receive(self) -> Any:
        """Wait for the next message; None when the client was silent for too long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.ensure_future(self._websocket.receive())
        try:
            while True:
                # A WebSocket ping is a sign of life as well, though it is no message.
                heard = max(began, last_ping(self._websocket.scope))
                left = heard + self._core.timings.idle_timeout - loop.time()
                if left <= 0:
                    return None
                await asyncio.wait({waiting}, timeout=left)
                if waiting.done():
                    return waiting.result()
        finally:
            waiting.cancel()

    async def _work(self) -> int | None:
        try:
            while True:
                item = await self._mailbox.get()
                if isinstance(item, _Outbound):
                    self.unsent -= len(item.frame)
                    self.stalled = self.stalled and self.unsent > 0
                    if not self._core.faults.swallow:
                        await self._send(item.frame)
                    continue
                self._unhandled.release()
                if not self._core.faults.swallow:
                    await self._handle(item)
        except (WebSocketDisconnect, OSError, RuntimeError) as error:
            log.debug("the client went away while a frame was sent: %s", error)
            return None

    async def _handle(self, frame: Inbound) -> None:
        if frame.topic == "phoenix" and frame.event == "heartbeat":
            await self._answer(frame, {})
            return
        if frame.event == "phx_join" and frame.topic.startswith(TOPIC_PREFIX):
            await self._join(frame)
            return
        channel = self._channels.get(frame.topic)
        if channel is None:
            if frame.event == "phx_leave":
                await self._answer(frame, {})
            else:
                await self._answer(frame, {"reason": "unmatched topic"}, status="error")
            return
        if frame.join_ref is None or frame.join_ref == channel.join_ref:
            # A frame with the reference of an earlier join is dropped without a word.
            await channel.handle(frame)

    async def _join(self, frame: Inbound) -> None:
        if (live := self._channels.get(frame.topic)) is not None:
            # Its phx_close goes to the mailbox and so leaves after this join's reply.
            live.close()
        try:
            reason = self._core.faults.refuse_joins
            if reason is not None:
                raise JoinRefusedError(reason)
            if len(self._channels) >= MOST_CHANNELS:
                raise JoinRefusedError("ChannelRateLimitReached: Too many channels")
            join = read_join(frame.topic, frame.payload, self._core.keys, self._token)
            headers = client_headers(self._websocket.headers)
            channel = Channel(self, frame.topic, frame.join_ref, join, self._core, headers)
            await channel.enter()
        except JoinRefusedError as error:
            await asyncio.sleep(self._core.faults.join_refusal_delay)
            await self._answer(frame, {"reason": str(error)}, status="error", join_ref=frame.join_ref)
            return
        self._channels[frame.topic] = channel
        await self._answer(frame, channel.reply_to_join(), join_ref=frame.join_ref)
        channel.start()
