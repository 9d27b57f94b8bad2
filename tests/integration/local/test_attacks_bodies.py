"""Bodies, queries and answers nobody means well with."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest

from tests.integration.local.attacks import error_shape
from tests.integration.local.conftest import Api

BODIES: dict[str, tuple[bytes, set[int]]] = {
    "empty": (b"", {400}),
    "white space": (b" \n", {400}),
    "cut off": (b'{"name": "x"', {400}),
    "two values": (b"{} {}", {400}),
    "not UTF-8": (b'{"name": "\xff\xfe"}', {400}),
    "overlong UTF-8": (b'{"name": "\xc0\x80"}', {400}),
    "UTF-16": ('{"name": "x"}'.encode("utf-16"), {400}),
    "byte order mark": (b'\xef\xbb\xbf{"name": "x"}', {400}),
    "a bare text": (b'"name"', {400}),
    "a number": (b"5", {400}),
    "null": (b"null", {400}),
    "array of numbers": (b"[1, 2]", {400}),
    "arrays in an array": (b"[[{}]]", {400}),
    "NaN": (b'{"score": NaN}', {400}),
    "infinity": (b'{"score": -Infinity}', {400}),
    "deep array": (b"[" * 100_000, {400}),
    "deep and closed": (b'{"data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", {400}),
    "deep objects": (b'{"data": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", {400}),
    "a number of many digits": (b'{"score": ' + b"9" * 100_000 + b"}", {400}),
    "a number too large for its column": (b'{"age": 99999999999}', {400}),
    "a number with a huge exponent": (b'{"age": 1e400}', {400}),
    "a zero byte": (b'{"name": "a\x00b"}', {400}),
    "an escaped zero byte": (b'{"name": "a\\u0000b"}', {400}),
    "an escaped zero byte in jsonb": (b'{"data": {"a": "\\u0000"}}', {400}),
    "half a surrogate pair": (b'{"name": "\\ud800"}', {400}),
    "half a surrogate pair as a key": (b'{"\\udfff": 1}', {400}),
    "a whole surrogate pair": (b'{"name": "\\ud83d\\ude00"}', {201}),
    "the same key twice": (b'{"name": "a", "name": "b"}', {201}),
    "many keys": (json.dumps({f"k{n}": n for n in range(20_000)}).encode(), {400}),
    "a gzip bomb": (gzip.compress(b'{"name": "' + b"x" * 20_000_000 + b'"}'), {400}),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_bodies(api: Api, kind: str) -> None:
    body, statuses = BODIES[kind]
    headers = {"Content-Type": "application/json"}
    if "gzip" in kind:
        headers["Content-Encoding"] = "gzip"
    answer = api.request("POST", "/people", content=body, headers=headers)
    assert answer.status_code in statuses, answer.text[:300]
    if answer.status_code >= 400:
        error_shape(answer)
    # A function's arguments and an update are read by the same rules.
    for method, path in (("POST", "/rpc/echo"), ("PATCH", "/people?id=eq.1")):
        other = api.request(method, path, content=body, headers=headers)
        if other.status_code >= 300:
            error_shape(other)
    assert api.rpc("add", a=1).json() == 11


def test_a_body_that_unpacks_itself_takes_no_memory(api: Api) -> None:
    bomb = gzip.compress(b"[" + b" " * 200_000_000 + b"]", 9)
    before = psutil.Process(os.getpid()).memory_info().rss
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    error_shape(api.request("POST", "/people", content=bomb, headers=headers))
    assert psutil.Process(os.getpid()).memory_info().rss - before < 100_000_000


def test_long_and_deep_queries(api: Api) -> None:
    deep = "or=(" + "and(" * 5_000 + "id.eq.1" + ")" * 5_001
    error_shape(api.get(f"/people?{deep}"))
    error_shape(api.get("/people?or=" + "(" * 20_000))
    error_shape(api.get("/people?select=data" + "->a" * 10_000))
    error_shape(api.get("/people?select=data->" + "9" * 10_000))
    error_shape(api.get("/people?select=" + "id," * 10_000 + "id"))
    error_shape(api.get("/people?order=" + "id," * 10_000 + "id"))
    assert len(api.get("/people?" + "&".join(["id=gt.0"] * 3_000)).json()) == 4
    assert len(api.get("/people?id=in.(" + ",".join(map(str, range(9_000))) + ")").json()) == 4
    nested = "or=(" + "and(" * 98 + "id.eq.1" + ")" * 99
    assert [row["id"] for row in api.get(f"/people?{nested}").json()] == [1]


def test_long_statements_are_not_kept_by_the_database(api: Api) -> None:
    for n in range(60):
        conditions = ",".join(f"id.eq.{n * 1000 + i}" for i in range(n, n + 400))
        assert api.get(f"/people?or=({conditions})").status_code == 200
    # Asked through the API, so of one of the very sessions.
    api.connection.execute(
        "create or replace function kept() returns bigint language sql volatile as "
        "'select max(length(statement)) from pg_prepared_statements'"
    )
    try:
        assert api.rpc("kept").json() < 20_000
    finally:
        api.connection.execute("drop function kept")


def test_a_costly_pattern_ends_at_the_time_limit(api: Api) -> None:
    """The role's statement timeout guards what no parser can judge."""
    api.connection.execute("alter role anon set statement_timeout = '200ms'")
    api.connection.execute("notify pgrst, 'reload config'")
    try:
        pattern = quote("^(((((x{1,30}){1,30}){1,20})))*$", safe="")
        answer = api.get(f"/people?name=match.{pattern}", key=api.gateway.anon_key, timeout=30)
        assert answer.status_code in (200, 400, 500)
        assert api.rpc("add", a=1).json() == 11
    finally:
        api.connection.execute("alter role anon set statement_timeout = '3s'")
        api.connection.execute("notify pgrst, 'reload config'")


def test_answers_a_function_forges_are_refused(api: Api) -> None:
    """A function may set headers; it may not smuggle a second answer in one."""
    api.connection.execute("""
        create or replace function smuggle(name text, value text) returns int language sql as $$
          select set_config('response.headers', json_build_array(json_build_object(name, value))::text, true);
          select 1 $$;
        create or replace function smuggle_error(value text) returns int language plpgsql as $$
          begin raise sqlstate 'PGRST' using message = '{"code":"1","message":"m"}',
            detail = json_build_object('status', 400, 'headers', json_build_object('X-A', value))::text;
          end $$;
    """)
    try:
        assert api.rpc("smuggle", name="X-A", value="fine").headers["x-a"] == "fine"
        for value in ("a\r\nX-B: b", "a\n\nHTTP/1.1 200 OK", "snow ☃"):
            answer = api.rpc("smuggle", name="X-A", value=value)
            assert (answer.status_code, answer.json()["code"]) == (500, "PGRST111")
            answer = api.rpc("smuggle_error", value=value)
            assert (answer.status_code, answer.json()["code"]) == (500, "PGRST121")
            assert "x-b" not in answer.headers
    finally:
        api.connection.execute("drop function smuggle; drop function smuggle_error")


def test_the_database_agrees_that_nothing_happened(api: Api, pg_cluster: Any) -> None:
    """After all of that: the pool is whole, and no session hangs in a transaction."""
    with psycopg.connect(pg_cluster.admin_dsn(api.connection.info.dbname), autocommit=True) as admin:
        states = admin.execute(
            "select count(*), count(*) filter (where state like '%in transaction%') from pg_stat_activity "
            "where application_name = 'reactive-worker REST' and datname = current_database()"
        ).fetchone()
    assert states is not None
    assert states[0] <= 10
    assert states[1] == 0
