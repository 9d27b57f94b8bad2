"""Broadcasts over HTTP: many messages in one call, or one message as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from reactive_worker.local.faults import Faults
from reactive_worker.local.json_text import read_json
from reactive_worker.local.realtime.authorization import (
    Asker,
    AuthorizationError,
    Authorizer,
    client_headers,
)
from reactive_worker.local.realtime.broadcast import LARGEST_PAYLOAD, BroadcastHub
from reactive_worker.local.realtime.joins import TOPIC_PREFIX
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import Raw, UserBroadcast, dumps, fits_binary
from reactive_worker.local.realtime.tokens import KeyRing, Token, TokenError, api_key_token, verify


def _unauthorized(status: int = 401) -> Response:
    return JSONResponse({"message": "Unauthorized"}, status_code=status)


def _problems(message: Any) -> dict[str, list[str]]:
    given = cast("Mapping[str, Any]", message if isinstance(message, Mapping) else {})
    return {
        name: ["can't be blank"] for name in ("topic", "event", "payload") if given.get(name) in (None, "")
    }


class BroadcastApi:
    """The HTTP calls ``POST /api/broadcast`` and ``POST /api/broadcast/{topic}/events/{event}``.

    Parameters
    ----------
    hub:
        Where messages go.
    authorizer:
        Says who may write to private channels.
    keys:
        The project's keys.
    faults:
        The message rate limit, which answers tell of.
    """

    def __init__(self, hub: BroadcastHub, authorizer: Authorizer, keys: KeyRing, faults: Faults) -> None:
        self._hub = hub
        self._authorizer = authorizer
        self._keys = keys
        self._faults = faults

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Both calls below `prefix`."""
        one = f"{prefix}/broadcast/{{topic}}/events/{{event}}"
        return [
            Route(f"{prefix}/broadcast", self._limited(self._batch), methods=["POST"]),
            Route(one, self._limited(self._one), methods=["POST"]),
        ]

    def _limited(self, call: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Refuse while too many messages pass, and tell in headers how many do."""

        async def answer(request: Request) -> Response:
            limit = self._faults.message_rate_limit
            if limit is None:
                return await call(request)
            rate = self._hub.rate.average
            if rate > limit:
                response: Response = JSONResponse({"message": "Too many requests"}, status_code=429)
            else:
                response = await call(request)
            response.headers["x-rate-rolling"] = str(round(rate))
            response.headers["x-rate-limit"] = str(round(limit))
            response.headers["x-rate-limit-remaining"] = str(max(0, round(limit - rate)))
            return response

        return answer

    def _token(self, request: Request) -> Token | None:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        key = text.strip() if scheme.lower() == "bearer" else ""
        try:
            return verify(self._keys, api_key_token(self._keys, key or request.headers.get("apikey", "")))
        except TokenError:
            return None

    async def _may_write(self, request: Request, token: Token, topic: str) -> bool:
        try:
            rights = await self._authorizer.writes(Asker(token, topic, client_headers(request.headers)))
        except AuthorizationError:
            # Logged where it was raised; who may write cannot be said, so nobody may.
            return False
        return rights.broadcast

    async def _batch(self, request: Request) -> Response:
        """Many messages, any topics. Private ones the caller may not write are dropped in silence."""
        try:
            body: Any = read_json(await request.body(), finite=True)
        except ValueError:
            return PlainTextResponse("Bad Request", status_code=400)
        token = self._token(request)
        if token is None:
            return _unauthorized()
        messages: Any = cast("Mapping[str, Any]", body).get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            return JSONResponse({"errors": {"messages": ["can't be blank"]}}, status_code=422)
        listed = cast("list[Any]", messages)
        problems = [_problems(message) for message in listed]
        if any(problems):
            return JSONResponse({"errors": {"messages": problems}}, status_code=422)
        allowed: dict[str, bool] = {}
        for message in listed:
            topic, private = str(message["topic"]), message.get("private") is True
            if private and topic not in allowed:
                allowed[topic] = await self._may_write(request, token, topic)
            if not private or allowed[topic]:
                payload = {"event": message["event"], "payload": message["payload"], "type": "broadcast"}
                self._hub.publish(Room(TOPIC_PREFIX + topic, private), Raw(dumps(payload)))
        return Response(status_code=202)

    async def _one(self, request: Request) -> Response:
        """One message, JSON or bytes, to one topic."""
        token = self._token(request)
        if token is None:
            return _unauthorized()
        topic, event = str(request.path_params["topic"]), str(request.path_params["event"])
        room = Room(TOPIC_PREFIX + topic, request.query_params.get("private") == "true")
        body = await request.body()
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        readers: dict[str, Callable[[str, bytes], UserBroadcast]] = {
            "application/json": _json_broadcast,
            "application/octet-stream": lambda name, data: UserBroadcast(name, data, is_json=False),
        }
        reader = readers.get(kind)
        if reader is None:
            text = "Unsupported Media Type. Use application/json or application/octet-stream"
            return JSONResponse({"error": text}, status_code=415)
        if len(body) > LARGEST_PAYLOAD or not fits_binary(room.topic, event):
            return JSONResponse({"errors": {"payload": ["is too large"]}}, status_code=422)
        try:
            message = reader(event, body)
        except ValueError:
            return PlainTextResponse("Bad Request", status_code=400)
        if room.private and not await self._may_write(request, token, topic):
            return _unauthorized(403)
        self._hub.publish(room, message)
        return Response(status_code=202)


def _json_broadcast(event: str, data: bytes) -> UserBroadcast:
    body: Any = read_json(data, finite=True)
    # What is not an object is wrapped, as the real server's HTTP layer does.
    wrapped = cast("object", body if isinstance(body, dict) else {"_json": body})
    return UserBroadcast(event, dumps(wrapped).encode(), is_json=True)
