"""The Realtime endpoint: handshakes, sockets, and the HTTP side of broadcasts."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from reactive_worker.local.faults import FaultAction, Faults
from reactive_worker.local.realtime.broadcast_api import BroadcastApi
from reactive_worker.local.realtime.core import Core
from reactive_worker.local.realtime.serializer import VERSIONS
from reactive_worker.local.realtime.socket import Socket
from reactive_worker.local.realtime.timings import Pacing, Timings
from reactive_worker.local.realtime.tokens import KeyRing, TokenError, api_key_token, verify

PREFIX = "/realtime/v1"

#: Close code of a server that goes away.
_RESTARTING = 1012
#: Seconds the sockets get to say goodbye when the server stops.
_CLOSE_PATIENCE = 1.0


class RealtimeServer:
    """Realtime for one database: the wire protocol of Supabase Realtime, below ``/realtime/v1``.

    No connection is opened before the first client joins a channel. The replication slots, one for messages
    and, once somebody subscribes, one for changes, are temporary and gone when the server stops or dies.

    Parameters
    ----------
    dsn:
        Connection string of a superuser of the database (`wal_level` must be `logical`).
    keys:
        The project's keys.
    faults:
        Switches that make it misbehave.
    pacing:
        ``fast``: a change waits up to 20 ms. ``hosted``: up to 500 ms, as on a hosted project.
    timings:
        Other delays than the pacing's, for tests.

    Notes
    -----
    Serve it with ``uvicorn.Config(app, ws=RealtimeProtocol, ws_ping_interval=None)`` (see transport.py).

    Example
    -------
    >>> server = RealtimeServer(dsn, keys=Keys.default(), faults=Faults())
    >>> await server.start()
    >>> app = Starlette(routes=server.routes())
    """

    def __init__(
        self,
        dsn: str,
        *,
        keys: KeyRing,
        faults: Faults,
        pacing: Pacing = "fast",
        timings: Timings | None = None,
    ) -> None:
        self._keys = keys
        self._faults = faults
        self._timings = Timings.of(pacing) if timings is None else timings
        self._sockets: set[Socket] = set()
        self._core = Core(dsn, keys=keys, faults=faults, timings=self._timings, sockets=self._sockets)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe = _nothing

    async def start(self) -> None:
        """Get ready, in the event loop that will serve the sockets."""
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = self._faults.subscribe(self._on_fault)

    async def stop(self) -> None:
        """Close every socket (1012) and every connection; returns when the database may be dropped."""
        self._unsubscribe()
        sockets = tuple(self._sockets)
        for socket in sockets:
            socket.close(_RESTARTING)
        ends = [asyncio.create_task(socket.ended.wait()) for socket in sockets]
        if ends:
            # A client that does not read may not even take its close frame.
            _, waiting = await asyncio.wait(ends, timeout=_CLOSE_PATIENCE)
            for end in waiting:
                end.cancel()
        await self._core.close()

    @property
    def changes_handled(self) -> int:
        """How many changes of subscribed tables were read from the log and dealt with so far."""
        return self._core.poller.handled

    @property
    def messages_handled(self) -> int:
        """How many messages of the database were read from the log and dealt with so far."""
        return self._core.messages.handled

    @property
    def streams_messages(self) -> bool:
        """Whether messages of the database that are committed now will be delivered."""
        return self._core.messages.live

    async def check_publication(self) -> None:
        """Look now, and not only every minute, whether other tables are published than before.

        Raises
        ------
        psycopg.OperationalError
            The database is down.
        """
        await self._core.check_publication()

    def routes(self) -> list[BaseRoute]:
        """Everything below ``/realtime/v1``, for a Starlette application."""
        routes: list[BaseRoute] = [WebSocketRoute(f"{PREFIX}/websocket", self.endpoint)]
        api = BroadcastApi(self._core.broadcasts, self._core.authorizer, self._keys, self._faults)
        routes += api.routes(f"{PREFIX}/api")
        return routes

    async def endpoint(self, websocket: WebSocket) -> None:
        """Serve ``GET /realtime/v1/websocket``: check version and key, then the socket until it ends."""
        version = websocket.query_params.get("vsn", VERSIONS[0])
        if version not in VERSIONS:
            await websocket.send_denial_response(Response(status_code=403))
            return
        headers = websocket.headers
        key = headers.get("x-api-key", websocket.query_params.get("apikey", headers.get("apikey")))
        problem: str | None = "API key is missing"
        token = ""
        if key is not None:
            token = api_key_token(self._keys, key)
            try:
                verify(self._keys, token)
                problem = None
            except TokenError as error:
                problem = error.handshake_text
        if problem is not None:
            await asyncio.sleep(self._timings.handshake_refusal_delay)
            await websocket.send_denial_response(JSONResponse({"error": problem}, status_code=401))
            return
        await websocket.accept()
        socket = Socket(websocket, version, token, self._core)
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)

    def _on_fault(self, action: FaultAction) -> None:
        # Called in whatever thread flipped the switch.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._apply, action)

    def _apply(self, action: FaultAction) -> None:
        if action.name == "drop_sockets" and self._faults.stream_gap:
            self._core.messages.restart()
        for socket in tuple(self._sockets):
            socket.apply(action)


def _nothing() -> None:
    """Stands for "not subscribed to faults"."""
