"""A proxy that answers in the server's place: refusals and half answers from the way to a Supabase."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from contextlib import suppress
from typing import Literal, get_args

from reactive_worker.testing._loopback import LoopbackProxy

Answer = Literal[
    "401", "403", "404", "409", "413", "429", "500", "502", "503", "504", "html", "empty", "cut", "half"
]
#: Everything it can answer with.
ANSWERS: tuple[Answer, ...] = get_args(Answer)

_REASONS = {
    "401": ("Unauthorized", "application/json", '{"message":"Invalid API key"}'),
    "403": ("Forbidden", "text/html", "<html><h1>Forbidden</h1>request blocked</html>"),
    "404": (
        "Not Found",
        "application/json",
        '{"code":"PGRST202","message":"Could not find the function in the schema cache","details":null,'
        '"hint":null}',
    ),
    "409": ("Conflict", "application/json", '{"message":"conflict"}'),
    "413": ("Payload Too Large", "text/html", "<html><h1>413 Request Entity Too Large</h1></html>"),
    "429": ("Too Many Requests", "text/plain", "slow down"),
    "500": ("Internal Server Error", "application/json", '{"message":"An unexpected error occurred"}'),
    "502": ("Bad Gateway", "text/html", "<html><h1>502 Bad Gateway</h1></html>"),
    "503": ("Service Unavailable", "application/json", '{"error":"upstream unavailable"}'),
    "504": ("Gateway Timeout", "text/html", "<html><h1>504 Gateway Time-out</h1></html>"),
    "html": ("OK", "text/html", "<html><h1>We will be back soon</h1></html>"),
    "empty": ("OK", "application/json", ""),
}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection: *[^\r]*", re.IGNORECASE)


class AnsweringProxy(LoopbackProxy):
    """Forwards HTTP to a loopback port, or answers itself.

    ===============  ===================================================================================
    ``"401"`` ...    that status, with the page or the JSON that gateways send with it; half of these
    ``"504"``        answers come after the server has done what it was asked (chosen by the seed)
    ``"html"``       200 with a page
    ``"empty"``      200 with nothing
    ``"cut"``        the server's own answer, and the connection is closed in the middle of it
    ``"half"``       the first half of the server's own answer, as if it were the whole
    ===============  ===================================================================================

    Websockets always pass.

    Parameters
    ----------
    host, port:
        Where to forward to.
    only:
        Answers only requests whose path contains this (``/rest/v1/rpc/``); forwards all others.
    seed:
        Of what is chosen at random.

    Example
    -------
    >>> async with AnsweringProxy("127.0.0.1", 54321, seed=7) as proxy:  # doctest: +SKIP
    ...     proxy.answer = "half"
    """

    def __init__(self, host: str, port: int, *, only: str = "", seed: int = 0) -> None:
        super().__init__(host, port)
        self._only = only
        self._random = random.Random(seed)
        #: What it answers with now: one of `ANSWERS`, ``"any"`` for another one each time, None forwards.
        self.answer: Answer | Literal["any"] | None = None
        #: How often each answer was given, and ``"passed"``.
        self.given: Counter[str] = Counter()

    async def storm(self, seconds: float, *, spell: float = 30.0) -> None:
        """Answer in this way and that for so many seconds: each `spell` s something else, or nothing.

        Every other spell is calm or mixed, so that what was held up can move on; the order is the seed's.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while (left := end - loop.time()) > 0:
                for answer in (self._random.choice(ANSWERS), self._random.choice((None, None, "any"))):
                    self.answer = answer
                    await asyncio.sleep(min(spell, max(0.0, left)))
                    left = end - loop.time()
        finally:
            self.answer = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower():
                await self._tunnel(head, reader, writer)
                return
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            answer = await self._answered(head, body)
            writer.write(answer)
            await writer.drain()

    async def _answered(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ", 2)[1].decode("latin-1")
        answer = self.answer if self._only in path else None
        if answer == "any":
            answer = self._random.choice(ANSWERS)
        self.given[answer or "passed"] += 1
        if answer in _REASONS:
            if answer not in ("html", "empty") and self._random.random() < 0.5:
                await self._ask(head, body)
            reason, kind, text = _REASONS[answer]
            status = answer if answer.isdigit() else "200"
            return _response(f"{status} {reason}", kind, text.encode())
        said = await self._ask(head, body)
        if answer == "cut":
            # More was promised: the reader notices, in the middle of the body if there is one.
            return said[: _middle(said)]
        if answer == "half":
            content = _content(said)
            return _response("200 OK", "application/json", content[: len(content) // 2])
        return said

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        """The whole answer of the server."""
        reader, writer = await asyncio.open_connection(*self._target)
        self._ends.add(writer)
        try:
            # One request for each connection: the end of the answer is the end of the stream.
            head = _CONNECTION.sub(b"", head).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            writer.write(head + body)
            await writer.drain()
            return await reader.read()
        finally:
            self._ends.discard(writer)
            writer.close()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._ends.add(far_writer)
        try:
            far_writer.write(head)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._ends.discard(far_writer)
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


def _middle(said: bytes) -> int:
    """Where to cut an answer: half-way through its body."""
    begin = said.find(b"\r\n\r\n") + 4
    return begin + (len(said) - begin) // 2


def _content(said: bytes) -> bytes:
    """The body of an answer, whatever way it was sent."""
    head, _, body = said.partition(b"\r\n\r\n")
    if not _CHUNKED.search(head):
        return body
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        content, body = content + body[:length], body[length + 2 :]
        if not length:
            break
    return content
