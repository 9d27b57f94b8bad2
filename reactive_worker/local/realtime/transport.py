"""uvicorn's WebSocket protocol, with the time of the client's last ping made visible.

ASGI hides pings, but the real server counts them as signs of life: without this a client that only pings
would be closed as idle. Optional: with uvicorn's own protocol everything else works alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

_EXTENSION = "reactive_worker.pings"


class PingAwareProtocol(WebSocketsSansIOProtocol):
    """Pass it to uvicorn as ``ws=``; notes in the scope when the client last sent a ping."""

    def handle_connect(self, event: Request) -> None:
        """Accept a handshake."""
        super().handle_connect(event)
        self._pings: dict[str, Any] = {}
        # A refused handshake has no scope.
        if scope := getattr(self, "scope", None):
            cast("dict[str, Any]", scope["extensions"])[_EXTENSION] = self._pings

    def handle_ping(self) -> None:
        """Answer a ping."""
        super().handle_ping()
        self._pings["last"] = self.loop.time()


def last_ping(scope: Mapping[str, Any]) -> float:
    """When the client last sent a ping, in the event loop's time; 0.0 if never, or not known."""
    extensions = cast("Mapping[str, Any]", scope.get("extensions") or {})
    return float(cast("Mapping[str, float]", extensions.get(_EXTENSION) or {}).get("last", 0.0))
