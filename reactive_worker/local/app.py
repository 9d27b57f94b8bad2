"""The gateway: REST, storage, Realtime and fault switches behind one port, for this machine only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from reactive_worker.local.faults import Faults
from reactive_worker.local.json_text import read_json
from reactive_worker.local.keys import SERVICE_ROLE, KeyRefusedError, Keys
from reactive_worker.local.limits import Bodies
from reactive_worker.local.origins import stranger

REST_PREFIX = "/rest/v1"
STORAGE_PREFIX = "/storage/v1"
AUTH_PREFIX = "/auth/v1"

_MISSING = {"functions": "edge functions", "graphql": "GraphQL"}
_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"
_EXPOSED = "Content-Range, Content-Profile, Preference-Applied, Proxy-Status, Retry-After"


class LocalApp:
    """Sends each request to where it belongs.

    Parameters
    ----------
    rest:
        Gets everything below ``/rest/v1``, with that prefix removed from the path.
    storage:
        Gets everything below ``/storage/v1``, likewise.
    auth:
        Gets everything below ``/auth/v1``, likewise.
    routes:
        Of the Realtime server.
    keys:
        For ``/_local``, which takes the service key only.
    faults:
        The switches that ``POST /_local/faults`` sets.
    """

    def __init__(
        self,
        rest: ASGIApp,
        storage: ASGIApp,
        auth: ASGIApp,
        routes: Sequence[BaseRoute],
        keys: Keys,
        faults: Faults,
    ) -> None:
        self._below = {REST_PREFIX: rest, STORAGE_PREFIX: storage, AUTH_PREFIX: auth}
        self._keys = keys
        self._faults = faults
        self._bodies = Bodies()
        self._others = Starlette(
            routes=[
                *routes,
                Route("/_local/faults", self._show_faults, methods=["GET"]),
                Route("/_local/faults", self._set_faults, methods=["POST"]),
                Route("/_local/health", _health, methods=["GET"]),
                Route("/{path:path}", _not_here, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request or one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._others(scope, receive, send)
            return
        reason = stranger(scope["headers"])
        if reason is not None:
            await _refuse(reason, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._others(scope, receive, send)
            return
        origin, asks = _cors_headers(scope["headers"])
        if scope["method"] == "OPTIONS" and asks is not None:
            await _preflight(asks)(scope, receive, send)
            return
        answer = _with_cors(send) if origin else send
        path: str = scope["path"]
        if not path.startswith("/"):
            # A whole URL or an asterisk, as for a proxy: no route of ours, but answered like one.
            scope = {**scope, "path": f"/{path}"}
        with self._bodies.limited(scope, receive) as body:
            for prefix, app in self._below.items():
                if path.startswith(prefix) and path[len(prefix) :][:1] in ("", "/"):
                    await app({**scope, "path": path[len(prefix) :]}, body, answer)
                    return
            await self._others(scope, body, answer)

    def _refusal(self, request: Request) -> Response | None:
        try:
            # In a header, which no form of a page can send; the query would do for one.
            identity = self._keys.identify(
                authorization=request.headers.get("authorization"), apikey=request.headers.get("apikey")
            )
        except KeyRefusedError as error:
            return JSONResponse({"message": error.message, "hint": error.hint}, 401)
        if identity.role != SERVICE_ROLE:
            return JSONResponse({"message": "Only the service role key may use /_local", "hint": None}, 403)
        return None

    async def _show_faults(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse(self._faults.snapshot())

    async def _set_faults(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            changes: Any = read_json(await request.body())
            if not isinstance(changes, dict):
                raise ValueError("a JSON object is expected: names of switches and their values")
            self._faults.apply(changes)  # pyright: ignore[reportUnknownArgumentType] - checked there
        except ValueError as error:
            return JSONResponse({"message": str(error), "hint": None}, 400)
        return JSONResponse(self._faults.snapshot())


async def _refuse(reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    body = {"message": f"The embedded Supabase answers this machine only: {reason}", "hint": None}
    refusal = JSONResponse(body, 403)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(refusal)
    else:
        await refusal(scope, receive, send)


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _not_here(request: Request) -> Response:
    service = request.url.path.strip("/").split("/", 1)[0]
    if service in _MISSING:
        message = f"{_MISSING[service]} (/{service}) is not part of the embedded Supabase"
        return JSONResponse({"message": message, "hint": "Use `supabase start` or a hosted project."}, 501)
    return JSONResponse({"message": "no Route matched with those values", "hint": None}, 404)


# -- CORS ------------------------------------------------------------------------------------------


def _cors_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bool, bytes | None]:
    """Whether a browser asks from some origin, and which headers a preflight wants to send."""
    origin, preflight, wanted = False, False, b""
    for name, value in headers:
        if name == b"origin":
            origin = True
        elif name == b"access-control-request-method":
            preflight = True
        elif name == b"access-control-request-headers":
            wanted = value
    return origin, (wanted if origin and preflight else None)


def _preflight(wanted: bytes) -> Response:
    return Response(
        status_code=200,
        headers={
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": wanted.decode("latin-1"),
            "Access-Control-Max-Age": "3600",
        },
    )


def _with_cors(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                (b"access-control-allow-origin", b"*"),
                (b"access-control-expose-headers", _EXPOSED.encode()),
            ]
        await send(message)

    return with_headers
