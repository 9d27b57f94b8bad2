"""Calling functions with supabase-py."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from postgrest import CountMethod

from tests.conformance.cases import ANY, Case, parametrize, refused, run
from tests.conformance.conftest import World

EXACT = CountMethod.exact


def call(
    name: str,
    function: str,
    arguments: Any = None,
    data: Any = ANY,
    status: int = 200,
    *,
    then: Any = None,
    get: bool = False,
    head: bool = False,
    count: Any = None,
    **more: Any,
) -> Case:
    """A call; `then` adds filters to it."""

    def build(world: World) -> Any:
        query = world.rpc(function, arguments, get=get, head=head, count=count)
        return then(query) if then is not None else query

    return Case(name, build, data, status, **more)


def missing(name: str, function: str, arguments: Any) -> Case:
    return call(name, function, arguments, **refused(404, "PGRST202"))


CALLS = [
    call("a scalar", "add", {"a": 1, "b": 2}, 3, range="0-0/*"),
    call("a default", "add", {"a": 1}, 11),
    call("an argument as text", "add", {"a": "5"}, 15),
    call("a null argument", "add", {"a": None}, None),
    call("by GET", "add", {"a": 1, "b": 2}, 3, get=True),
    call("by GET with a negative number", "add", {"a": -1}, 9, get=True),
    call("by HEAD", "add", {"a": 1}, ANY, head=True),
    call("json", "echo", {"value": {"a": [1, None, "é"]}}, {"a": [1, None, "é"]}),
    call("json that is a text", "echo", {"value": "x"}, "x"),
    call("json that is false", "echo", {"value": False}, False),
    call("json by GET", "echo", {"value": {"a": 1}}, {"a": 1}, get=True),
    call("a null", "null_text", None, None),
    call("a set of numbers", "numbers", {"n": 3}, [1, 2, 3], range="0-2/*"),
    call("a set of nothing", "numbers", {"n": 0}, [], range="*/*"),
    call("a set of rows", "everyone", None, [ANY] * 4),
    call("a set of rows, filtered", "everyone", None, [ANY], then=lambda q: q.eq("name", "Ada")),
    call(
        "a set of rows, ordered and cut",
        "everyone",
        None,
        [{"id": 4}, {"id": 3}],
        then=lambda q: q.select("id").order("id", desc=True).limit(2),
    ),
    call(
        "a set of rows, some columns",
        "everyone",
        None,
        [{"n": "Ada"}],
        then=lambda q: q.select("n:name").eq("id", 1),
    ),
    call(
        "a set of rows, a range",
        "everyone",
        None,
        [{"id": 2}, {"id": 3}],
        then=lambda q: q.select("id").range(1, 2),
    ),
    call(
        "a set of rows, counted",
        "everyone",
        None,
        [ANY],
        206,
        then=lambda q: q.limit(1),
        count=EXACT,
        range="0-0/4",
    ),
    call(
        "a set of rows, one",
        "everyone",
        None,
        {"name": "Bob"},
        then=lambda q: q.select("name").eq("id", 2).single(),
    ),
    call("one row", "oldest", None, ANY),
    call("a table", "pairs", None, [{"k": "a", "v": 1}, {"k": "b", "v": 2}]),
    call("a table, filtered", "pairs", None, [{"k": "b", "v": 2}], then=lambda q: q.eq("v", 2)),
    call("OUT parameters", "two_out", None, {"a": 1, "b": "x"}),
    call("variadic", "total", {"numbers": [1, 2, 3]}, 6),
    call("a single unnamed json parameter", "whole_body", {"any": {"thing": 1}}, {"any": {"thing": 1}}),
    call("max rows", "numbers", {"n": 1500}, [*range(1, 1001)]),
    call(
        "all types",
        "types",
        {
            "a": uuid.UUID(int=1),
            "b": "2026-01-02T03:04:05Z",
            "c": 1.5,
            "d": [1, 2],
            "e": "",
            "f": False,
            "g": {},
            "h": "ok",
        },
        {
            "a": str(uuid.UUID(int=1)),
            "b": "2026-01-02T03:04:05+00:00",
            "c": 1.5,
            "d": [1, 2],
            "e": "",
            "f": False,
            "g": {},
            "h": "ok",
        },
    ),
]

REFUSED = [
    # The client makes one text of the list, and each text is one element.
    call(
        "a list for a variadic parameter by GET",
        "total",
        {"numbers": [1, 2]},
        get=True,
        **refused(400, "22P02", 'invalid input syntax for type integer: "{1,2}"', None, None),
    ),
    missing("an unknown function", "nothing_like_it", {}),
    missing("a missing argument", "add", {"b": 1}),
    missing("an argument too many", "add", {"a": 1, "b": 2, "c": 3}),
    missing("an argument by another name", "add", {"x": 1}),
    call("two functions that fit", "overloaded", {"a": 1}, **refused(300, "PGRST203", ANY, None)),
    call(
        "an argument of another type",
        "add",
        {"a": "old"},
        **refused(400, "22P02", 'invalid input syntax for type integer: "old"', None, None),
    ),
    call("raise", "fail", {"code": "P0001"}, **refused(400, "P0001", "no", "why", "try")),
    call("raise with a status", "fail", {"code": "PT409"}, **refused(409, "PT409", "no", "why", "try")),
    call(
        "raise with a code of one's own",
        "fail",
        {"code": "RW001", "said": "mine"},
        **refused(400, "RW001", "mine", "why", "try"),
    ),
    call("a unique violation raised", "fail", {"code": "23505"}, **refused(409, "23505")),
    call("a lost privilege", "fail", {"code": "42501"}, **refused(403, "42501")),
    call(
        "one of several rows",
        "everyone",
        None,
        then=lambda q: q.single(),
        **refused(406, "PGRST116", ANY, "The result contains 4 rows", None),
    ),
    call(
        "a write in a function that claims to read",
        "claims_to_read",
        {"p_id": 1},
        **refused(405, "25006", ANY, None, None),
    ),
    call("a write by GET", "write", {"p_id": 1}, get=True, **refused(405, "25006", ANY, None, None)),
    Case(
        "no right to execute",
        lambda w: w.anon.rpc(w.target.name("private"), {}),
        **refused(401, "42501", ANY, None, None),
    ),
]


@parametrize(*CALLS)
def test_calls(world: World, case: Case) -> None:
    run(world, case)


@parametrize(*REFUSED)
def test_refused(world: World, case: Case) -> None:
    run(world, case)


@pytest.mark.embedded("a real PostgREST 14 tries such a transaction again, without end")
@pytest.mark.parametrize("code", ["40P01", "40001"])
def test_a_deadlock_raised_on_purpose(world: World, code: str) -> None:
    run(world, call("", "fail", {"code": code}, **refused(500, code)))


def test_void_is_204_without_a_body(world: World) -> None:
    answer = world.rpc("nothing").execute()
    assert (world.answers[-1].status_code, world.answers[-1].content) == (204, b"")
    assert answer.data in (None, "", [])


def test_a_write_is_committed(fresh: World) -> None:
    assert fresh.rpc("write", {"p_id": 7}).execute().data == 7
    assert fresh.target.sql("select line from rwc_log where id = 7") == [("written",)]


def test_a_function_may_choose_status_and_headers(world: World) -> None:
    name = world.target.name("teapot")
    answer = world.service.postgrest.session.post(
        f"{world.target.url}/rest/v1/rpc/{name}",
        headers={"apikey": world.target.service_key, "Authorization": f"Bearer {world.target.service_key}"},
        json={},
    )
    assert (answer.status_code, answer.headers["x-pot"], answer.json()) == (418, "tea", "short and stout")


def test_what_a_function_knows_of_its_request(world: World) -> None:
    name = world.target.name("who")
    known = world.rpc("who").execute().data
    assert known == {
        "role": "service_role",
        "uid": None,
        "email": None,
        "method": "POST",
        "path": f"/rpc/{name}",
        "header": None,
    }
    known = world.rpc("who", get=True).execute().data
    assert known["method"] == "GET"
