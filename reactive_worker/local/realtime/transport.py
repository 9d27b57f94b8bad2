"""uvicorn's WebSocket protocol with some things put right for Realtime. Optional: all else works without it.

ASGI hides pings, but the real server counts them as signs of life: a client that only pings must not be
closed as idle. A refused handshake is an ordinary answer, not an error to log; one that cannot be read is
answered instead of waited for. And the URL of a WebSocket holds a key, so it must not be logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent
    from websockets.http11 import Request

_EXTENSION = "reactive_worker.pings"
_UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_log = logging.getLogger("uvicorn.error.realtime")
_log.setLevel(logging.WARNING)


class RealtimeProtocol(WebSocketsSansIOProtocol):
    """Pass it to uvicorn as ``ws=RealtimeProtocol``, with ``ws_ping_interval=None``: Realtime never pings."""

    _pings: dict[str, Any] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # What uvicorn and websockets log below a warning is the handshake with its URL, and frames.
        self.logger = self.conn.logger = _log
        self.conn.debug = False

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # A line or a header that is too long, say. uvicorn would leave the connection open for ever.
            self.handshake_complete = self.close_sent = True
            self.transport.write(_UNREADABLE)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Take a handshake; the scope will tell when the client last sent a ping."""
        super().handle_connect(event)
        # One that is no WebSocket handshake at all gets no scope.
        if (scope := getattr(self, "scope", None)) is not None:
            self._pings = cast("dict[str, Any]", scope["extensions"]).setdefault(_EXTENSION, {})

    def handle_ping(self) -> None:
        """Answer a ping."""
        super().handle_ping()
        if self._pings is not None:
            self._pings["last"] = self.loop.time()

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # The refusal is complete; otherwise uvicorn reports an application that never answered.
            self.handshake_complete = True


def last_ping(scope: Mapping[str, Any]) -> float:
    """When the client last sent a ping, in the event loop's time; 0.0 if never, or not known."""
    extensions = cast("Mapping[str, Any]", scope.get("extensions") or {})
    return float(cast("Mapping[str, float]", extensions.get(_EXTENSION) or {}).get("last", 0.0))
