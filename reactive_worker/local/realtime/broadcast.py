"""Messages between the members of a channel, from sockets and over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from reactive_worker.local.json_text import read_json
from reactive_worker.local.realtime.serializer import Raw, UserBroadcast, dumps, fits_binary
from reactive_worker.local.realtime.tokens import KeyRing, TokenError, api_key_token, verify

#: Largest broadcast payload, in bytes.
LARGEST_PAYLOAD = 3_000_500

Payload = Raw | UserBroadcast


class Member(Protocol):
    """A channel, as far as broadcasts go."""

    def receive(self, payload: Payload) -> None:
        """Take a broadcast."""
        ...


class BroadcastHub:
    """Who is in which public channel."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, None]] = {}

    def join(self, topic: str, member: Member) -> None:
        """Let a channel receive what is sent to its topic."""
        self._members.setdefault(topic, {})[member] = None

    def leave(self, topic: str, member: Member) -> None:
        """End that; harmless when it never began."""
        members = self._members.get(topic, {})
        members.pop(member, None)
        if not members:
            self._members.pop(topic, None)

    def publish(self, topic: str, payload: Payload, *, leave_out: Member | None = None) -> None:
        """Give a message to all members of a topic.

        Parameters
        ----------
        topic:
            With its ``realtime:`` prefix.
        payload:
            A whole broadcast payload as JSON, or a binary one.
        leave_out:
            The sender, when it does not want its own messages back.
        """
        for member in tuple(self._members.get(topic, ())):
            if member is not leave_out:
                member.receive(payload)


def _unauthorized() -> Response:
    return JSONResponse({"message": "Unauthorized"}, status_code=401)


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
    keys:
        The project's keys.
    """

    def __init__(self, hub: BroadcastHub, keys: KeyRing) -> None:
        self._hub = hub
        self._keys = keys

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Both calls below `prefix`."""
        one = f"{prefix}/broadcast/{{topic}}/events/{{event}}"
        return [
            Route(f"{prefix}/broadcast", self.batch, methods=["POST"]),
            Route(one, self.one, methods=["POST"]),
        ]

    def _authorized(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else ""
        try:
            verify(self._keys, api_key_token(self._keys, key or request.headers.get("apikey", "")))
        except TokenError:
            return False
        return True

    async def batch(self, request: Request) -> Response:
        """Many messages, any topics. Private ones are dropped: nothing lets anybody write to them yet."""
        try:
            body: Any = read_json(await request.body(), finite=True)
        except ValueError:
            return PlainTextResponse("Bad Request", status_code=400)
        if not self._authorized(request):
            return _unauthorized()
        messages: Any = cast("Mapping[str, Any]", body).get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            return JSONResponse({"errors": {"messages": ["can't be blank"]}}, status_code=422)
        listed = cast("list[Any]", messages)
        problems = [_problems(message) for message in listed]
        if any(problems):
            return JSONResponse({"errors": {"messages": problems}}, status_code=422)
        for message in listed:
            if message.get("private") is not True:
                payload = {"event": message["event"], "payload": message["payload"], "type": "broadcast"}
                self._hub.publish(f"realtime:{message['topic']}", Raw(dumps(payload)))
        return Response(status_code=202)

    async def one(self, request: Request) -> Response:
        """One message, JSON or bytes, to one topic."""
        if not self._authorized(request):
            return _unauthorized()
        topic, event = f"realtime:{request.path_params['topic']}", str(request.path_params["event"])
        if request.query_params.get("private") == "true":
            hint = "private channels are not supported by the embedded Realtime yet"
            return JSONResponse({"message": "Unauthorized", "hint": hint}, status_code=403)
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
        if len(body) > LARGEST_PAYLOAD or not fits_binary(topic, event):
            return JSONResponse({"errors": {"payload": ["is too large"]}}, status_code=422)
        try:
            self._hub.publish(topic, reader(event, body))
        except ValueError:
            return PlainTextResponse("Bad Request", status_code=400)
        return Response(status_code=202)


def _json_broadcast(event: str, data: bytes) -> UserBroadcast:
    body: Any = read_json(data, finite=True)
    # What is not an object is wrapped, as the real server's HTTP layer does.
    wrapped = cast("object", body if isinstance(body, dict) else {"_json": body})
    return UserBroadcast(event, dumps(wrapped).encode(), is_json=True)
