"""Replays a recorded trace: does what its client did, and keeps the answers next to the recorded ones.

The recorded waits are not repeated: before each step of the client all frames that had come by then in the
recording are awaited.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from reactive_worker.local.keys import Keys
from tests.integration.realtime.harness import PATIENCE, Client, Frame, Gateway
from tests.integration.realtime.omissions import STATEMENTS, Line, complete

TRACES = Path(__file__).parent / "traces"
U1, U2 = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
#: How long the tokens live that were recorded with 8 seconds.
SHORT_LIFE = 2


def load(name: str) -> list[Line]:
    """The lines of a trace, in the order in which their client did things."""
    lines: list[Line] = []
    for line in complete(name, _read(name)):
        position = len(lines)
        if "http" in line:
            # Noted when the answer came; what members received before was already its effect.
            while position and lines[position - 1]["dir"] == "in":
                position -= 1
        lines.insert(position, line)
    return lines


def _read(name: str) -> list[Line]:
    plain = TRACES / f"{name}.jsonl"
    text = (
        plain.read_text()
        if plain.exists()
        else gzip.decompress((TRACES / f"{name}.jsonl.gz").read_bytes()).decode()
    )
    return [json.loads(line) for line in text.splitlines()]


def tokens(gateway: Gateway) -> dict[str, str]:
    """What the recording's placeholders stand for."""
    keys, now = gateway.keys, int(time.time())
    later = now + 3600
    u1 = {"sub": U1, "role": "authenticated", "exp": later}
    stranger = Keys(jwt_secret="another secret, also of 32 characters or more")
    return {
        "service_role": keys.service_role_key,
        "anon": keys.anon_key,
        "bad signature": stranger.anon_key,
        "expired": keys.mint({"role": "anon", "exp": now - 100}),
        "no role claim": keys.mint({"exp": later}),
        "no exp claim": keys.mint({"role": "anon"}),
        "role=nosuchrole": keys.mint({"role": "nosuchrole", "exp": later}),
        "service_role, second token": keys.mint({"role": "service_role", "exp": later}),
        "authenticated sub=u1": keys.mint(u1),
        "authenticated sub=u2": keys.mint({**u1, "sub": U2}),
        "anon exp=+8s": keys.mint({"role": "anon", "exp": now + SHORT_LIFE}),
        "authenticated exp=+8s": keys.mint({**u1, "exp": now + SHORT_LIFE}),
        "authenticated exp=+8s b": keys.mint({**u1, "exp": now + SHORT_LIFE, "b": 1}),
    }


@dataclass
class Replay:
    """One replayed trace."""

    expected: dict[str, list[Frame]] = field(default_factory=lambda: defaultdict(list))
    actual: dict[str, list[Frame]] = field(default_factory=dict)
    closes: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


class Player:
    """Plays the client side of one trace."""

    def __init__(
        self,
        gateway: Gateway,
        database: psycopg.Connection[Any],
        *,
        skip: Callable[[Line], bool] = lambda line: False,
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._skip = skip
        self._tokens = tokens(gateway)
        self._clients: dict[str, Client] = {}
        self._result = Replay()
        self._notices: list[str] = []
        self._sent_broadcasts: set[Client] = set()
        #: The stream of messages was killed and has not come back; nobody ever hears of so many messages.
        self._killed = False
        self._lost = 0
        database.add_notice_handler(
            lambda notice: self._notices.append(f"{notice.severity}: {notice.message_primary}")
        )

    def _real(self, text: str) -> str:
        # "Since a minute ago" was meant, which now is long ago.
        text = re.sub(r'"since": \d+', '"since": 0', text)
        return re.sub(r"<jwt:([^>]*)>", lambda match: self._tokens[match[1]], text)

    async def play(self, lines: Iterable[Line]) -> Replay:
        held = False
        for line in lines:
            if self._skip(line):
                continue
            conn = line.get("conn", "")
            if line["dir"] == "in":
                self._result.expected[conn].append(line["frame"])
                continue
            is_sql = "sql" in line or "transaction" in line
            if held and not is_sql:
                self._release()
                held = False
            await self._caught_up()
            if is_sql:
                await self._broadcasts_taken()
                sends = not self._killed and "realtime.send" in json.dumps(line)
                if sends:
                    await self._stream_open()
                # Statements with nothing heard in between were so close that one poll saw them all.
                held = self._hold()
                self._run(line)
                if sends:
                    await self._messages_sent()
            else:
                await self._step(conn, line)
        await self._caught_up()
        for conn, client in self._clients.items():
            if client.close_code is None:
                await client.close()
            self._result.actual[conn] = client.frames
        return self._result

    async def _broadcasts_taken(self) -> None:
        """Wait until the server has dealt with what members sent, also where nothing is to be heard of it."""
        for client in self._sent_broadcasts:
            if client.close_code is None:
                await client.barrier()
        self._sent_broadcasts.clear()

    async def _stream_open(self) -> None:
        """Wait until messages of the database are streamed: a public channel does not wait for that."""
        server = self._gateway.server
        assert server is not None
        await _until(lambda: server.streams_messages, "messages of the database are not streamed")

    async def _messages_sent(self) -> None:
        """Wait until all messages stored by now have passed, also by those who are not there yet."""
        server = self._gateway.server
        assert server is not None
        row = self._database.execute("select count(*) from realtime.messages").fetchone()
        assert row is not None
        expected = row[0] - self._lost
        await _until(lambda: server.messages_handled >= expected, "messages of the database do not come")

    def _hold(self) -> bool:
        self._gateway.faults.idle_interval = 3600
        return True

    def _release(self) -> None:
        self._gateway.faults.idle_interval = 0

    async def _caught_up(self) -> None:
        pending = {
            conn: len(frames)
            for conn, frames in self._result.expected.items()
            if conn in self._clients and self._clients[conn].close_code is None
        }
        waiting = [
            (conn, count) for conn, count in pending.items() if len(self._clients[conn].frames) < count
        ]
        if waiting:
            self._release()
        for conn, count in waiting:
            try:
                await self._clients[conn].heard(count)
            except TimeoutError:
                frames = self._clients[conn].frames
                missing = self._result.expected[conn][len(frames) : count]
                raise AssertionError(
                    f"{conn} got {len(frames)} of {count} frames; then came\n{missing}"
                ) from None

    async def _step(self, conn: str, line: Line) -> None:
        client = self._clients.get(conn or "a")
        if line["dir"] == "out":
            assert client is not None
            frame = line["frame"]
            if "broadcast" in (frame if isinstance(frame, list) else frame.values()):
                self._sent_broadcasts.add(client)
            if "binary_hex" in frame:
                await client.connection.send(bytes.fromhex(frame["binary_hex"]))
            else:
                await client.connection.send(self._real(json.dumps(frame)))
        elif "connect" in line:
            await self._connect(conn, line)
        elif "handshake" in line:
            if line["handshake"] != 101:
                status, body = self._result.actual.pop(conn)[0]["refused"]
                assert (status, body) == (line["handshake"], line["body"]), conn
        elif "send_text" in line:
            assert client is not None
            await client.connection.send(line["send_text"])
        elif "client_closes" in line:
            assert client is not None
            await client.close()
        elif "closed" in line:
            assert client is not None
            self._result.closes.append((conn, line["closed"], await client.closed()))
        elif "sent" in line:
            assert client is not None
            await client.connection.send(_large(line["sent"], client.version))
        elif line.get("case") == "frame above 5,000,000 bytes":
            await self._clients["a"].connection.send("x" * 5_000_001)
        elif "http" in line:
            await self._http(line)
        elif line.keys() & {"SIGTERM", "publication_check", "changes_again", "streams_again"}:
            await self._server_side(line)
        elif "server_notices" in line:
            assert self._notices == line["server_notices"]

    async def _server_side(self, line: Line) -> None:
        server = self._gateway.server
        assert server is not None
        if "SIGTERM" in line:
            stopping = asyncio.run_coroutine_threadsafe(server.stop(), self._gateway.loop)
            await asyncio.wrap_future(stopping)
        elif "publication_check" in line:
            checking = asyncio.run_coroutine_threadsafe(server.check_publication(), self._gateway.loop)
            await asyncio.wrap_future(checking)
        elif "changes_again" in line:
            active = (
                "select exists(select from pg_replication_slots where active"
                " and database = current_database() and slot_name like 'realtime_changes%')"
            )
            ask = self._database.execute
            await _until(lambda: ask(active).fetchone() == (True,), "changes are not streamed again")
        else:
            self._killed, self._lost = False, line["streams_again"]
            await self._stream_open()

    async def _connect(self, conn: str, line: Line) -> None:
        url = urlsplit(self._real(line["connect"]))
        version = parse_qs(url.query).get("vsn", ["1.0.0"])[0]
        base = f"ws://127.0.0.1:{self._gateway.port}/realtime/v1/websocket?{url.query}"
        headers = {name: self._real(value) for name, value in line.get("headers", {}).items()}
        try:
            connection = await connect(base, additional_headers=headers, max_size=None)
        except InvalidStatus as refusal:
            body = (refusal.response.body or b"").decode()
            self._result.actual[conn] = [{"refused": (refusal.response.status_code, body)}]
            return
        self._clients[conn] = Client(connection, version)

    async def _http(self, line: Line) -> None:
        method, path = line["http"].split(" ")
        headers: dict[str, str] = {}
        if line["auth"]:
            kind, _, token = self._real(line["auth"]).partition(" ")
            headers = {"authorization": f"Bearer {token}"} if kind == "bearer" else {"apikey": token}
        request = line["request"]
        content = request if isinstance(request, str) else json.dumps(request)
        kinds = {"0001": "application/octet-stream", "x": "text/plain"}
        headers["content-type"] = kinds.get(content, "application/json")
        async with httpx.AsyncClient() as http:
            response = await http.request(
                method,
                f"http://127.0.0.1:{self._gateway.port}/realtime/v1{path}",
                headers=headers,
                content=bytes.fromhex(content) if content == "0001" else content,
            )
        assert (response.status_code, response.text) == (line["status"], line["body"]), line
        if "content-type" in line["headers"]:
            recorded = line["headers"]["content-type"].partition(";")[0]
            if recorded == "application/json":
                assert response.headers["content-type"].partition(";")[0] == recorded

    def _run(self, line: Line) -> None:
        what = line.get("sql", line.get("transaction"))
        statements = [what] if isinstance(what, str) else what
        statements = [STATEMENTS.get(statement, statement) for statement in statements]
        self._result.statements += statements
        self._notices.clear()
        self._killed = self._killed or "realtime_messages%" in statements[0]
        with self._database.transaction():
            for statement in statements:
                self._database.execute(statement)


async def _until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, problem
        await asyncio.sleep(0.001)


def _large(what: str, version: str) -> str:
    """The broadcast of 3.2 MB a trace only mentions."""
    ref = re.search(r"ref (\d+)", what)
    assert ref is not None
    topic = "realtime:both1" if version == "1.0.0" else "realtime:both2"
    payload = {"type": "broadcast", "event": "big", "payload": {"x": "x" * 3_200_000}}
    if version == "1.0.0":
        return json.dumps(
            {"topic": topic, "event": "broadcast", "payload": payload, "ref": ref[1], "join_ref": "7"}
        )
    return json.dumps(["7", ref[1], topic, "broadcast", payload])
