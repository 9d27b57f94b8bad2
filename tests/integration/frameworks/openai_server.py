"""A model that says what a test tells it to: an OpenAI-compatible server on loopback.

    with ScriptedModel() as model:
        model.script(ToolCall("add", {"a": 1, "b": 2}), Answer("three"))
        ...  # a framework with OPENAI_BASE_URL=model.base_url
    assert model.requests[1]["messages"][-1]["role"] == "tool"

Each request takes the next reply, streamed or not as the request asks. It runs in a thread of its own, so
that sync and async frameworks can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

#: The key clients have to send; looked for in whatever a test stores or logs.
KEY = "sk-scripted-0123456789abcdefghijklmn"
MODEL = "scripted"


@dataclass
class Answer:
    """Text; streamed word by word, or in `tokens` if they are given."""

    text: str = ""
    tokens: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.tokens = self.tokens or [word + " " for word in self.text.split(" ")[:-1]] + [
            self.text.split(" ")[-1]
        ]
        self.text = "".join(self.tokens)


@dataclass
class ToolCall:
    """The model wants a tool called; `call_id` is made up if empty."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    call_id: str = ""


@dataclass
class Failure:
    """An error status, with a Retry-After if it is given (seconds)."""

    status: int
    retry_after: float | None = None
    message: str = "scripted failure"


@dataclass
class Cut:
    """The connection breaks after these tokens."""

    tokens: list[str] = field(default_factory=lambda: ["half ", "an "])


@dataclass
class Stall:
    """Nothing more after these tokens until `release` is set; then the rest of `text`."""

    tokens: list[str] = field(default_factory=lambda: ["thinking "])
    text: str = "done"
    #: Set when the tokens are sent.
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    #: Set when the client hung up meanwhile.
    abandoned: threading.Event = field(default_factory=threading.Event)


Reply = Answer | ToolCall | Failure | Cut | Stall


class ScriptedModel:
    """The server; a context manager."""

    def __init__(self) -> None:
        #: Bodies of the chat requests so far.
        self.requests: list[dict[str, Any]] = []
        self._replies: deque[Reply] = deque()
        self._stalls: list[Stall] = []
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host="127.0.0.1",
                port=0,
                # A cut stream is an exception in the application; nobody wants its traceback.
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._server.run, name="scripted model", daemon=True)

    def __enter__(self) -> ScriptedModel:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()
        self._server.should_exit = True
        self._thread.join(20)

    @property
    def base_url(self) -> str:
        """For OPENAI_BASE_URL."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    def script(self, *replies: Reply) -> None:
        """Say these next, in order."""
        self._replies.extend(replies)

    def reset(self) -> None:
        """Forget the script and the requests, and let go whatever stalls."""
        for stall in self._stalls:
            stall.release.set()
        self._stalls.clear()
        self._replies.clear()
        self.requests.clear()

    @property
    def left(self) -> int:
        """Replies nobody has asked for yet."""
        return len(self._replies)

    # -- routes ----------------------------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tests"}]}
        )

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, f"Incorrect API key provided: {request.headers.get('authorization')}")
        self.requests.append(body)
        if not self._replies:
            return _error(400, "nothing is scripted for this request")
        reply = self._replies.popleft()
        if isinstance(reply, Failure):
            return _error(reply.status, reply.message, reply.retry_after)
        if isinstance(reply, Stall):
            self._stalls.append(reply)
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_stream(reply, usage), media_type="text/event-stream")
        return await _whole(reply)


async def _whole(reply: Reply) -> Response:
    if isinstance(reply, Cut):
        return StreamingResponse(_cut(), media_type="application/json", headers={"content-length": "999"})
    if isinstance(reply, Stall):
        await _wait(reply)
        reply = Answer("".join(reply.tokens) + reply.text)
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if isinstance(reply, ToolCall):
        message["tool_calls"] = [_call(reply)]
    else:
        assert isinstance(reply, Answer)
        message["content"] = reply.text
    finish = "tool_calls" if isinstance(reply, ToolCall) else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return JSONResponse(_frame("chat.completion", [choice]) | {"usage": USAGE})


async def _stream(reply: Reply, usage: bool) -> AsyncIterator[str]:
    yield _chunk({"role": "assistant", "content": ""})
    finish = "stop"
    if isinstance(reply, ToolCall):
        finish = "tool_calls"
        call = _call(reply)
        arguments = call["function"]["arguments"]
        # The arguments come in pieces, as from a real model.
        middle = len(arguments) // 2
        call["function"]["arguments"] = arguments[:middle]
        yield _chunk({"tool_calls": [{"index": 0, **call}]})
        yield _chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[middle:]}}]})
    else:
        assert isinstance(reply, Answer | Cut | Stall)
        for token in reply.tokens:
            yield _chunk({"content": token})
            await asyncio.sleep(0)
    if isinstance(reply, Cut):
        raise ConnectionAbortedError("cut, as scripted")
    if isinstance(reply, Stall):
        await _wait(reply)
        yield _chunk({"content": reply.text})
    yield _chunk({}, finish)
    if usage:
        yield f"data: {json.dumps(_frame('chat.completion.chunk', []) | {'usage': USAGE})}\n\n"
    yield "data: [DONE]\n\n"


async def _cut() -> AsyncIterator[bytes]:
    yield b'{"id": "chatcmpl-1", '
    raise ConnectionAbortedError("cut, as scripted")


async def _wait(stall: Stall) -> None:
    stall.reached.set()
    try:
        while not stall.release.is_set():
            await asyncio.sleep(0.01)
    except (asyncio.CancelledError, GeneratorExit):
        stall.abandoned.set()
        raise


# -- shapes --------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_numbers = iter(range(1, 1_000_000))


def _frame(kind: str, choices: list[Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": MODEL, "choices": choices}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    frame = _frame("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}])
    return f"data: {json.dumps(frame)}\n\n"


def _call(reply: ToolCall) -> dict[str, Any]:
    return {
        "id": reply.call_id or f"call_{next(_numbers)}",
        "type": "function",
        "function": {"name": reply.name, "arguments": json.dumps(reply.arguments)},
    }


def _error(status: int, message: str, retry_after: float | None = None) -> Response:
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    body = {"error": {"message": message, "type": "scripted", "code": None}}
    return JSONResponse(body, status_code=status, headers=headers)


async def reached(event: threading.Event) -> None:
    """Wait for one of a Stall's events, ten seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while not event.is_set():
                await asyncio.sleep(0.005)
    assert event.is_set(), "the model was not asked, or its client did not hang up"
