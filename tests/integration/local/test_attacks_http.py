"""Attacks below REST: what arrives on the socket is no request, never ends, or tries to be another path."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.local.conftest import Api


class Line:
    """A TCP connection to the gateway that says exactly what it is told."""

    def __init__(self, api: Api) -> None:
        port = int(api.gateway.api_url.rsplit(":", 1)[1])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> bytes:
        """Everything up to the end of the connection."""
        parts: list[bytes] = []
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def status(self) -> int:
        """The status of the one answer on this connection; 0 if it ended without one."""
        answer = self.hear()
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.fixture
def line(api: Api) -> Generator[Any]:
    """Opens connections that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_line() -> Line:
            opened = Line(api)
            stack.callback(opened.socket.close)
            return opened

        yield open_line


def request(api: Api, target: str, method: str = "GET", *, headers: str = "", body: bytes = b"") -> bytes:
    """A request as bytes; the connection ends with its answer."""
    lines = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\napikey: {api.gateway.secret_key}\r\n{headers}"
    return f"{lines}Connection: close\r\n\r\n".encode("latin-1") + body


def alive(api: Api) -> None:
    assert api.rpc("add", a=1).json() == 11


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/rest/v1/people?id=eq.1", 200),
        ("/rest/v1/../rest/v1/people", 404),
        ("/rest/v1/../people", 404),
        ("/rest/v1/../_local/faults", 404),
        ("/rest/v1/%2e%2e/people", 404),
        ("/rest/v1/..%2fpeople", 404),
        ("/rest/v1/rpc/../people", 404),
        ("/rest/v1/rpc/%2e%2e/people", 404),
        ("/rest/v1/rpc%2f..%2fpeople", 404),
        ("/rest/v1//people", 404),
        ("/rest/v1/people/", 404),
        ("/rest/v1/people/1", 404),
        ("/rest/v1/rpc/", 404),
        ("/rest/v1/rpc", 404),
        ("/rest/v1/rpc/add/x?a=1", 404),
        ("//rest/v1/people", 404),
        ("/rest//v1/people", 404),
        ("/rest/v1/people%00", 404),
        ("/rest/v1/people%00.json", 404),
        ("/rest/v1/%00", 404),
        ("/rest/v1/public.people", 404),
        ("/rest/v1/hidden.people", 404),
        ("/rest/v1/hidden%22.%22people", 404),
        ("/rest/v1/%22people%22", 404),
        ("/rest/v1/pg_class", 404),
        ("/rest/v1/pg_catalog.pg_authid", 404),
        ("/rest/v1/rpc/pg_sleep?a=5", 404),
        ("/rest/v1/rpc/pg_read_file?filename=/etc/passwd", 404),
        ("/rest/v1/%ff%fe", 404),
        ("/rest/v1/people;x=1", 404),
        ("/rest/v1/people%3Fid=eq.1", 404),
        ("/rest/v1/people%23", 404),
        ("/rest/v1/" + "a" * 30_000, 404),
        ("/rest/v1/" + "a/" * 15_000, 404),
        ("/REST/V1/people", 404),
        ("http://elsewhere.example/rest/v1/people", 404),
        ("/realtime/v1/../../rest/v1/people", 404),
        ("/_local/../_local/faults", 404),
        ("/static/../../../../etc/passwd", 404),
        ("*", 404),
    ],
)
def test_paths(api: Api, line: Any, target: str, status: int) -> None:
    connection = line()
    connection.say(request(api, target))
    answer = connection.hear()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    body = answer.split(b"\r\n\r\n", 1)[1]
    assert b"root:" not in body
    if status == 404:
        assert body.startswith(b"{"), body[:200]
        assert b'"message"' in body


NONSENSE: dict[str, bytes] = {
    "nothing of HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a version of the future": b"GET / HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a zero byte in a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "a zero byte in the target": b"GET /rest/v1/people\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /rest/v1/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a negative length": b"POST /rest/v1/people HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "a length in words": b"POST /rest/v1/people HTTP/1.1\r\nHost: localhost\r\nContent-Length: two\r\n\r\n{}",
    "two lengths": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "an unknown coding": b"POST /rest/v1/people HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: z\r\n\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
    "headers without end": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 50_000,
    "a target without end": b"GET /rest/v1/people?" + b"a" * 200_000,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_is_no_request_is_refused(api: Api, line: Any, kind: str) -> None:
    connection = line()
    # It may be refused before all of it is sent.
    with contextlib.suppress(ConnectionError):
        connection.say(NONSENSE[kind])
    assert connection.status() in (0, 400, 404, 405, 501), kind
    alive(api)


def chunks(*sizes: bytes) -> bytes:
    return b"".join(size + b"\r\n" for size in sizes)


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (chunks(b"2", b"{}", b"0", b""), {201}),
        (chunks(b"2;x=y", b"{}", b"0", b"Trailer: x", b""), {201}),
        (chunks(b"zz", b"{}", b"0", b""), {0, 400}),
        (chunks(b"-2", b"{}", b"0", b""), {0, 400}),
        (chunks(b"1", b"{}", b"0", b""), {0, 400}),
        (chunks(b"f" * 30, b"{}"), {0, 400, 413}),
        (b"\0" * 1000, {0, 400}),
        (b"2\r\n{}" + b"A" * 100_000, {0, 400}),
    ],
)
def test_chunks(api: Api, line: Any, body: bytes, statuses: set[int]) -> None:
    connection = line()
    headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    connection.say(request(api, "/rest/v1/people", "POST", headers=headers, body=body))
    if 201 not in statuses:
        # Nothing more will come.
        connection.socket.shutdown(socket.SHUT_WR)
    assert connection.status() in statuses
    alive(api)


def test_a_length_that_promises_too_much_waits_and_holds_no_session(api: Api, line: Any) -> None:
    before = api.rows("select count(*) from people")
    waiting = [line() for _ in range(30)]
    for connection in waiting:
        headers = "Content-Type: application/json\r\nContent-Length: 1000\r\n"
        connection.say(request(api, "/rest/v1/people", "POST", headers=headers, body=b'{"name": "half"}'))
    # Three times as many as there are database sessions, and none of them is taken.
    alive(api)
    for connection in waiting:
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.status() in (0, 400)
    assert api.rows("select count(*) from people") == before
    alive(api)


def test_a_length_that_promises_too_little_smuggles_nothing(api: Api, line: Any) -> None:
    connection = line()
    hidden = request(api, "/rest/v1/people?id=eq.2", "DELETE").replace(b"apikey", b"x-other")
    first = request(api, "/rest/v1/rpc/add", "POST", headers="Content-Length: 8\r\n", body=b'{"a": 1}')
    connection.say(first.replace(b"Connection: close\r\n", b"") + hidden)
    answer = connection.hear()
    # The rest is a request of its own, judged by what itself brings.
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 401" in answer
    assert api.rows("select count(*) from people where id = 2") == [(1,)]


def test_a_body_announced_too_large_is_refused_at_once(api: Api, line: Any) -> None:
    for length in ("999999999999", "9" * 15):
        connection = line()
        connection.say(
            request(api, "/rest/v1/people", "POST", headers=f"Content-Length: {length}\r\n", body=b"{")
        )
        assert connection.status() == 413
    for path in ("/realtime/v1/api/broadcast", "/_local/faults"):
        connection = line()
        connection.say(request(api, path, "POST", headers="Content-Length: 999999999\r\n", body=b"{"))
        assert connection.status() == 413
    alive(api)


def test_all_bodies_together_are_bounded(api: Api, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.limits.MAX_BODIES", 100_000)
    headers = "Content-Type: application/json\r\nContent-Length: 60000\r\n"
    half = request(api, "/rest/v1/people", "POST", headers=headers, body=b"[" + b" " * 50_000)
    first, second, third = line(), line(), line()
    first.say(half)
    second.say(half)
    third.say(half)
    # Whichever came last is turned away; what it held is free again, also once the others have left.
    assert third.status() == 503 or second.status() == 503 or first.status() == 503
    for connection in (first, second, third):
        connection.socket.close()
    deadline = time.monotonic() + 10
    while api.post("/rpc/echo", {"value": "x" * 60_000}).status_code != 200:
        assert time.monotonic() < deadline


def test_slow_heads_are_given_up(api: Api, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.limits.HEAD_PATIENCE", 0.3)
    silent, slow, second = line(), line(), line()
    slow.say(b"GET /rest/v1/people HTTP/1.1\r\n")
    second.say(request(api, "/rest/v1/people?id=eq.1").replace(b"Connection: close\r\n", b""))
    # Head and body may come one after the other.
    answer = b""
    while not answer.endswith(b"]"):
        part = second.socket.recv(65536)
        assert part, answer
        answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    second.say(b"GET /rest/v1/people HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        # A header now and then does not buy more time.
        while not select.select([slow.socket], [], [], 0.02)[0]:
            slow.say(b"X: y\r\n")
    for connection in (slow, silent, second):
        assert connection.hear() == b""
    alive(api)


def test_slow_bodies_are_given_up(api: Api, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.limits.BODY_PATIENCE", 0.3)
    for path in ("/rest/v1/people", "/realtime/v1/api/broadcast"):
        connection = line()
        headers = "Content-Type: application/json\r\nContent-Length: 100\r\n"
        connection.say(request(api, path, "POST", headers=headers, body=b"{"))
        answer = connection.hear()
        assert answer.startswith(b"HTTP/1.1 408 "), answer
    alive(api)


def test_a_crowd_of_idle_connections_does_not_shut_others_out(
    api: Api, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    before = psutil.Process(os.getpid()).memory_info().rss
    crowd = [line() for _ in range(500)]
    for connection in crowd:
        connection.say(b"GET /rest/v1/people HTTP/1.1\r\nX: ")
    alive(api)
    assert psutil.Process(os.getpid()).memory_info().rss - before < 100_000_000
    # One too many is let go of at once; those who are there stay, and so does the database.
    monkeypatch.setattr("reactive_worker.local.limits.MOST_CONNECTIONS", 500)
    assert line().status() == 0
    alive(api)
    monkeypatch.undo()
    assert httpx.get(f"{api.gateway.api_url}/_local/health").status_code == 200


def test_answers_nobody_reads_hold_no_session(api: Api, line: Any) -> None:
    api.connection.execute("insert into people (name) select repeat('x', 5000) from generate_series(1, 900)")
    for _ in range(20):
        connection = line()
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.say(request(api, "/rest/v1/people?select=name"))
    # Twice as many as sessions; each answer is megabytes that stay in the gateway's buffers.
    with ThreadPoolExecutor(10) as threads:
        assert set(threads.map(lambda n: api.rpc("add", a=n).status_code, range(50))) == {200}


def test_methods_nobody_expects(api: Api, line: Any) -> None:
    for method in ("PUT", "TRACE", "CONNECT", "PROPFIND", "FOO", "get", "X" * 500):
        for path in ("/rest/v1/people", "/rest/v1/rpc/add", "/_local/health", "/realtime/v1/websocket"):
            connection = line()
            connection.say(request(api, path, method))
            assert connection.status() in (400, 404, 405), (method, path)
    alive(api)
