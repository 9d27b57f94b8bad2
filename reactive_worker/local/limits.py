"""How much of the gateway one client may take, and for how long: connections, request heads and bodies.

All of it is for clients that are broken or mean harm; an ordinary one meets no limit.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Generator
from contextlib import contextmanager

import h11
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)

#: Most connections at a time, WebSockets included.
MOST_CONNECTIONS = 4000
#: Open files left to everything else: PostgreSQL connections, logs, the program around the gateway.
_FILES_KEPT = 256
#: Seconds in which a request's line and headers must have come.
HEAD_PATIENCE = 30.0
#: Seconds in which a request's body must have come.
BODY_PATIENCE = 60.0
#: Largest request body in bytes, and most bytes of all bodies in memory at a time.
MAX_BODY = 64 * 1024 * 1024
MAX_BODIES = 8 * MAX_BODY

# After a refusal the rest of the body is nobody's: the connection ends with the answer.
_LAST = {"Connection": "close"}


def most_connections() -> int:
    """How many connections this process has room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else soft - _FILES_KEPT
    return max(16, min(MOST_CONNECTIONS, room))


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which by itself waits for ever for a request that never gets complete.

    Pass it to uvicorn as ``http=PatientProtocol``.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - uvicorn's own
        """Take a connection, or refuse one too many."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            _log.warning("more than %d connections: one more is refused", most_connections())
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a request whose head is not complete yet has only so much time."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_arrived()
        elif not self.transport.is_closing():
            self._watch_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over: a WebSocket has rules of its own."""
        self._head_arrived()
        super().handle_websocket_upgrade(event)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_PATIENCE, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Bodies:
    """Reads all requests' bodies: each only so large and so slow, and together only so many bytes."""

    def __init__(self) -> None:
        self._held = 0

    @contextmanager
    def limited(self, scope: Scope, receive: Receive) -> Generator[Receive]:
        """A request's `receive` within the limits, until the request is answered.

        Yields
        ------
        Receive
            Raises HTTPException while the body is read: 413 too large, 408 too slow, 503 too much at a time.
            What comes after the body is not limited.
        """
        body = _Body(self, receive, _announced(scope))
        try:
            yield body.receive
        finally:
            self._held -= body.size

    def take(self, size: int) -> None:
        """Count bytes that wait in memory.

        Raises
        ------
        HTTPException
            503: there are too many.
        """
        self._held += size
        if self._held > MAX_BODIES:
            raise HTTPException(503, "too many large requests at a time", _LAST)


class _Body:
    """One request's body, on its way in."""

    def __init__(self, bodies: Bodies, receive: Receive, announced: int) -> None:
        self._bodies = bodies
        self._receive = receive
        self._announced = announced
        self._deadline: float | None = None
        self._complete = False
        self.size = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + BODY_PATIENCE
            self._check_size(self._announced)
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._complete = True
            text = f"the request body did not come within {BODY_PATIENCE:g} seconds"
            raise HTTPException(408, text, _LAST) from None
        got = len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        self.size += got
        self._bodies.take(got)
        self._check_size(self.size)
        return message

    def _check_size(self, size: int) -> None:
        if size > MAX_BODY:
            self._complete = True
            raise HTTPException(413, f"the request body is larger than {MAX_BODY // 2**20} MiB", _LAST)


def _announced(scope: Scope) -> int:
    """The body's size as Content-Length tells it; 0 where it does not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])
    return 0
