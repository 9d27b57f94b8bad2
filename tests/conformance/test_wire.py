"""What supabase-py cannot say, but other clients do: headers, methods, raw query strings."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conformance.conftest import World


def send(world: World, method: str, path: str, **options: Any) -> httpx.Response:
    """One request with the service key; ``~`` in the path is the prefix."""
    key = world.target.service_key
    headers = {"apikey": key, "Authorization": f"Bearer {key}", **options.pop("headers", {})}
    url = f"{world.target.url}/rest/v1/{path.replace('~', world.target.prefix)}"
    # The clients' own connection, so that a case costs no handshake.
    return world.service.postgrest.session.request(method, url, headers=headers, **options)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"code", "message", "details", "hint"}, body
    return answer.status_code, body["code"]


def test_range_headers_count_rows(world: World) -> None:
    answer = send(world, "GET", "~people?select=id&order=id", headers={"Range-Unit": "items", "Range": "1-2"})
    assert (answer.json(), answer.headers["content-range"]) == ([{"id": 2}, {"id": 3}], "1-2/*")
    answer = send(world, "GET", "~people?select=id", headers={"Range": "2-1"})
    assert refusal(answer) == (416, "PGRST103")


UTF8 = "; charset=utf-8"
OBJECT, ARRAY = "application/vnd.pgrst.object", "application/vnd.pgrst.array"
STRIPPED = "+json;nulls=stripped"
ROW: dict[str, Any] = {"id": 3, "age": None}


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("*/*", "application/json", [ROW]),
        ("application/json", "application/json", [ROW]),
        (f"{OBJECT}+json", f"{OBJECT}+json", ROW),
        (OBJECT, f"{OBJECT}+json", ROW),
        (f"{OBJECT}{STRIPPED}", f"{OBJECT}{STRIPPED}", {"id": 3}),
        (f"{ARRAY}{STRIPPED}", f"{ARRAY}{STRIPPED}", [{"id": 3}]),
        ("text/html, application/json;q=0.9", "application/json", [ROW]),
    ],
)
def test_media_types(world: World, accept: str, kind: str, body: Any) -> None:
    answer = send(world, "GET", "~people?select=id,age&id=eq.3", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, kind + UTF8, body)


def test_a_media_type_that_cannot_be_had(world: World) -> None:
    assert refusal(send(world, "GET", "~people", headers={"Accept": "image/png"})) == (406, "PGRST107")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("id=eq.1&id=eq.2", []),
        ("and=(id.gt.1,id.lt.4)", [2, 3]),
        ("not.or=(id.eq.1,id.eq.2)", [3, 4]),
        ("not.and=(id.gt.1,id.lt.4)", [1, 4]),
        ("or=(id.eq.1,not.and(id.gt.1,id.lt.9))", [1]),
        ("age=not.is.null&id=not.eq.1", [2, 4]),
        ("tags=cs.{code,math}", [1]),
        ("or=(tags.cs.{math},id.eq.4)", [1, 4]),
        ('name=in.("Cy, \\"C\\"",Bob)', [2, 3]),
        ("age=eq(any).{17,52}", [2, 4]),
        ("age=gt(all).{17,30}", [1, 4]),
        ("name=like(any).{A*,B*}", [1, 2]),
        ("data->n->0=eq.1", [1]),
        ('"name"=eq.Bob', [2]),
        ("born=is.not_null", [1]),
        ("born=IS.NULL", None),
        ("age=is.NULL", [3]),
    ],
)
def test_query_strings(world: World, query: str, found: list[int] | None) -> None:
    answer = send(world, "GET", f"~people?select=id&order=id&{query}")
    if found is None:
        assert refusal(answer) == (400, "PGRST100")
    else:
        assert answer.json() == [{"id": number} for number in found]


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("POST", "~people", {"content": b"{"}, (400, "PGRST102")),
        ("POST", "~people", {"content": b""}, (400, "PGRST102")),
        ("POST", "~people", {"json": [{"name": "a"}, {"age": 1}]}, (400, "PGRST102")),
        ("POST", "~people?columns=name,nothing", {"json": {"name": "a"}}, (400, "PGRST204")),
        ("PATCH", "~rpc", {"json": {}}, (404, "PGRST205")),
        ("PATCH", "rpc/~add", {"json": {}}, (405, "PGRST101")),
        ("DELETE", "rpc/~add", {}, (405, "PGRST101")),
        ("GET", "~people?limit=-1", {}, (416, "PGRST103")),
        ("GET", "~people?select=(", {}, (400, "PGRST100")),
        ("GET", "~people?order=id.upwards", {}, (400, "PGRST100")),
        ("GET", "~people/1", {}, (404, "PGRST125")),
    ],
)
def test_what_is_refused(world: World, method: str, path: str, options: Any, expected: Any) -> None:
    if "content" in options:
        options = {**options, "headers": {"Content-Type": "application/json"}}
    assert refusal(send(world, method, path, **options)) == expected


def test_preferences_may_come_in_several_headers(fresh: World) -> None:
    key = fresh.target.service_key
    headers = [
        ("apikey", key),
        ("Authorization", f"Bearer {key}"),
        ("Prefer", "return=representation"),
        ("Prefer", "count=exact, missing=default"),
    ]
    url = f"{fresh.target.url}/rest/v1/{fresh.target.name('people')}?columns=name"
    answer = httpx.post(url, headers=headers, json=[{"name": "x"}])
    assert (answer.status_code, answer.headers["content-range"]) == (201, "*/1")
    applied = answer.headers["preference-applied"].split(", ")
    assert sorted(applied) == ["count=exact", "missing=default", "return=representation"]


def test_strict_handling_refuses_what_it_does_not_know(world: World) -> None:
    headers = {"Prefer": "handling=strict, anything=goes"}
    answer = send(world, "GET", "~people", headers=headers)
    assert refusal(answer) == (400, "PGRST122")
    headers = {"Prefer": "handling=lenient, anything=goes"}
    assert send(world, "GET", "~people?limit=1", headers=headers).status_code == 200


def test_a_single_unnamed_json_takes_objects(world: World) -> None:
    assert send(world, "POST", "rpc/~whole_body", json={"a": 1}).json() == {"a": 1}
    rows = [{"a": 1}, {"a": 2}]
    assert send(world, "POST", "rpc/~whole_body", json=rows).json() == rows
    assert refusal(send(world, "POST", "rpc/~whole_body", json=[1, 2])) == (400, "PGRST102")


def test_browsers_are_let_in(world: World) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "apikey,content-type",
    }
    answer = send(world, "OPTIONS", "~people", headers=asked)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", "http://localhost:3000")


def test_responses_say_which_rows_they_are(world: World) -> None:
    answer = send(
        world, "GET", "~people?select=id&order=id&limit=2&offset=1", headers={"Prefer": "count=exact"}
    )
    assert (answer.status_code, answer.headers["content-range"]) == (206, "1-2/4")
    assert answer.headers["preference-applied"] == "count=exact"
