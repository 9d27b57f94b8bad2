"""Calling functions over REST."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.local.conftest import Api

OBJECT = {"Accept": "application/vnd.pgrst.object+json"}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("add", {"a": 1, "b": 2}, 3),
        ("add", {"a": 1}, 11),
        ("add", {"a": "1"}, 11),
        ("echo", {"value": {"x": [1, {"y": None}], "ü": "\\"}}, {"x": [1, {"y": None}], "ü": "\\"}),
        ("echo", {"value": "text"}, "text"),
        ("echo", {"value": None}, None),
        ("null_text", {}, None),
        ("greeting", {"name": 'x"y'}, 'hello x"y'),
        ("numbers", {"n": 3}, [1, 2, 3]),
        ("numbers", {"n": 0}, []),
        ("pairs", {}, [{"k": "a", "v": 1}, {"k": "b", "v": 2}]),
        ("two_out", {}, {"a": 1, "b": "x"}),
        ("one_out", {}, {"a": 1}),
        ("total", {"numbers": [1, 2, 3]}, 6),
        ("whole_body", {"any": [1]}, {"any": [1]}),
    ],
)
def test_shapes(api: Api, name: str, arguments: dict[str, Any], expected: Any) -> None:
    answer = api.rpc(name, **arguments)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == expected


def test_void_is_no_content(api: Api) -> None:
    answer = api.rpc("nothing")
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.request("POST", "/rpc/nothing").status_code == 204


def test_one_row_is_an_object_and_a_set_is_a_list(api: Api) -> None:
    assert api.rpc("oldest").json()["name"] == "dora"
    assert [row["id"] for row in api.rpc("everyone").json()] == [1, 2, 3, 4]


def test_arguments_have_the_types_of_the_parameters(api: Api) -> None:
    arguments = {
        "a": "8A4F4CF5-5a5c-4b0e-8d6a-6d6b1f0f5f10",
        "b": "2026-05-06 07:08:09+02",
        "c": "1.50",
        "d": [1, None, 3],
        "e": None,
        "f": True,
        "g": None,
        "h": "sad",
    }
    assert api.rpc("types", **arguments).json() == {
        **arguments,
        "a": "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10",
        "b": "2026-05-06T05:08:09+00:00",
        "c": 1.5,
    }


def test_rows_of_a_function_can_be_filtered_and_paged(api: Api) -> None:
    query = "select=id,n:name&age=gt.1&order=id.desc&limit=2&offset=1"
    answer = api.post(f"/rpc/everyone?{query}", {}, "count=exact")
    assert answer.json() == [{"id": 2, "n": "Bob"}, {"id": 1, "n": "Ada"}]
    assert (answer.status_code, answer.headers["content-range"]) == (206, "1-2/3")
    assert api.post("/rpc/numbers?limit=1&offset=1", {"n": 3}).json() == [2]


def test_a_single_row_of_a_set(api: Api) -> None:
    assert api.request("POST", "/rpc/everyone?id=eq.2", json={}, headers=OBJECT).json()["name"] == "Bob"
    answer = api.request("POST", "/rpc/everyone", json={}, headers=OBJECT)
    assert (answer.status_code, answer.json()["details"]) == (406, "The result contains 4 rows")
    # Of a set of scalars the object is the row, and the row has a name for its column.
    answer = api.request("POST", "/rpc/numbers", json={"n": 1}, headers=OBJECT)
    assert answer.json() == {"pgrst_scalar": 1}
    answer = api.request("POST", "/rpc/numbers", json={"n": 2}, headers=OBJECT)
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert api.request("POST", "/rpc/add", json={"a": 1}, headers=OBJECT).json() == 11


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/rpc/add?a=1", 11),
        ("/rpc/add?a=1&b=2", 3),
        ("/rpc/echo?value={%22x%22:[1]}", {"x": [1]}),
        ("/rpc/total?numbers=1&numbers=2&numbers=3", 6),
        ("/rpc/everyone?id=eq.1&select=name", [{"name": "Ada"}]),
        ("/rpc/greeting?name=a%26b%27c", "hello a&b'c"),
    ],
)
def test_get(api: Api, path: str, expected: Any) -> None:
    assert api.get(path).json() == expected
    head = api.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")


def test_each_value_by_get_is_one_element_of_a_variadic_list(api: Api) -> None:
    answer = api.get("/rpc/total?numbers={1,2}")
    assert (answer.status_code, answer.json()["code"]) == (400, "22P02")
    assert answer.json()["message"] == 'invalid input syntax for type integer: "{1,2}"'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        ({}, {}),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ([], []),
        # What is neither an object nor a list of such arrives as an empty list.
        ("text", []),
        (5, []),
        (None, []),
        ([1, 2], "PGRST102"),
        ([{"a": 1}, {"b": 2}], "PGRST102"),
    ],
)
def test_a_single_unnamed_json_parameter(api: Api, body: Any, expected: Any) -> None:
    answer = api.request(
        "POST", "/rpc/whole_body", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    if isinstance(expected, str):
        assert (answer.status_code, answer.json()["code"]) == (400, expected)
        assert answer.json()["message"] == "All object keys must match"
    else:
        assert answer.json() == expected


def test_of_several_rows_the_first_is_a_call(api: Api) -> None:
    assert api.post("/rpc/add", [{"a": 1}, {"a": 2}]).json() == 11
    assert api.post("/rpc/add", []).status_code == 404
    assert api.post("/rpc/add?columns=a", {"a": 1, "b": 5, "nothing": 1}).json() == 11


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("text/plain", 404, "Could not find the function public.add in the schema cache"),
        ("application/octet-stream", 404, "Could not find the function public.add in the schema cache"),
        ("application/xml", 400, "Content-Type not acceptable: application/xml"),
        ("application/vnd.api+json", 400, "Content-Type not acceptable: application/vnd.api+json"),
    ],
)
def test_content_types_of_calls(api: Api, kind: str, status: int, message: str) -> None:
    answer = api.request("POST", "/rpc/add", content=b'{"a": 1}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["message"]) == (status, message)


def test_a_form_is_a_call(api: Api) -> None:
    assert api.request("POST", "/rpc/add", data={"a": "1", "b": "2"}).json() == 3
    assert api.request("POST", "/rpc/total", data={"numbers": ["1", "2"]}).json() == 3
    csv = api.request("POST", "/rpc/add", content=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"})
    assert csv.json() == 3


def test_a_body_may_be_one_unnamed_argument(api: Api) -> None:
    text = api.request("POST", "/rpc/whole_text", content="hällo", headers={"Content-Type": "text/plain"})
    assert text.json() == 5
    headers = {"Content-Type": "application/octet-stream"}
    assert api.request("POST", "/rpc/whole_bytes", content=b"\0\xff'", headers=headers).json() == 3


@pytest.mark.parametrize("arguments", [{}, {"a": 1, "c": 2}, {"b": 1}])
def test_keys_have_to_fit(api: Api, arguments: dict[str, int]) -> None:
    answer = api.rpc("add", **arguments)
    assert (answer.status_code, answer.json()["code"]) == (404, "PGRST202")
    assert answer.headers["proxy-status"] == "PostgREST; error=PGRST202"


def test_an_unknown_function_gets_a_hint(api: Api) -> None:
    answer = api.rpc("greetings", name="x")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "PGRST202",
        "message": "Could not find the function public.greetings(name) in the schema cache",
        "details": "Searched for the function public.greetings with parameter name or with a single unnamed "
        "json/jsonb parameter, but no matches were found in the schema cache.",
        "hint": "Perhaps you meant to call the function public.greeting",
    }


def test_overloads_are_told_apart_by_their_keys(api: Api) -> None:
    assert api.rpc("overloaded", b=True).json() == "b"
    answer = api.rpc("overloaded", a=1)
    assert (answer.status_code, answer.json()["code"]) == (300, "PGRST203")
    assert answer.json()["message"] == (
        "Could not choose the best candidate function between: "
        "public.overloaded(a => integer), public.overloaded(a => text)"
    )


def test_reading_calls_cannot_write(api: Api) -> None:
    for answer in (api.get("/rpc/write_one"), api.rpc("claims_write")):
        assert (answer.status_code, answer.json()["code"]) == (405, "25006")
    assert api.rows("select * from log") == []
    assert api.rpc("write_one").json() == 1


def test_a_minimal_answer_is_for_writes_only(api: Api) -> None:
    answer = api.post("/rpc/everyone", {}, "count=exact,return=minimal")
    assert (answer.status_code, len(answer.json())) == (200, 4)
    assert answer.headers["content-range"] == "0-3/4"
    assert answer.headers["preference-applied"] == "count=exact"


def test_what_is_not_selected_cannot_be_sorted_by(api: Api) -> None:
    """The rows of a function are what is selected of them, and what filters need."""
    answer = api.post("/rpc/everyone?select=name&order=id.desc", {})
    assert (answer.status_code, answer.json()["code"]) == (400, "42703")
    assert answer.json()["message"] == "column people.id does not exist"
    found = api.post("/rpc/everyone?select=id,name&order=id.desc&limit=1", {})
    assert found.json() == [{"id": 4, "name": "dora"}]
    assert api.post("/rpc/everyone?select=name&id=eq.1", {}).json() == [{"name": "Ada"}]


def test_a_scalar_counts_as_one_row(api: Api) -> None:
    answer = api.post("/rpc/add", {"a": 1}, "count=exact")
    assert (answer.json(), answer.headers["content-range"]) == (11, "0-0/1")
    assert api.get("/rpc/add?a=1").headers["content-range"] == "0-0/*"


def test_records_and_sets_of_nothing(api: Api) -> None:
    assert api.rpc("a_record").json() == {"a": 1, "b": "x"}
    assert api.rpc("records").json() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    answer = api.rpc("nothings")
    assert (answer.status_code, answer.json()) == (200, [])


def test_max_affected_is_for_sets(api: Api) -> None:
    prefer = "handling=strict,max-affected=2"
    assert api.post("/rpc/add", {"a": 1}, prefer).json()["code"] == "PGRST128"
    assert api.post("/rpc/pairs", {}, prefer).status_code == 200
    assert api.post("/rpc/pairs", {}, "handling=strict,max-affected=1").json()["code"] == "PGRST124"


def test_a_function_may_choose_status_and_headers(api: Api) -> None:
    answer = api.rpc("teapot")
    assert (answer.status_code, answer.json()) == (418, "short and stout")
    assert answer.headers["x-pot"] == "tea"
    # Several of one name stay several.
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ('[{"Content-Type": "text/x-own"}, {"X-One": "1"}]', False),
        ('{"X-One": "1"}', True),
        ('[{"X-One": 1}]', True),
        ('[{"X-One": "1", "X-Two": "2"}]', True),
        ("[{}]", True),
        ("no json", True),
    ],
)
def test_headers_are_a_list_of_single_texts(api: Api, headers: str, refused: bool) -> None:
    answer = api.rpc("with_headers", said=headers)
    if refused:
        assert (answer.status_code, answer.json()["code"]) == (500, "PGRST111")
        assert answer.json()["message"].startswith("response.headers guc must be a JSON array")
    else:
        assert answer.headers.get_list("content-type") == ["text/x-own"]
        assert answer.headers["x-one"] == "1"


def test_other_methods_are_refused(api: Api) -> None:
    answer = api.request("PATCH", "/rpc/add", json={"a": 1})
    assert (answer.status_code, answer.json()["code"]) == (405, "PGRST101")


@pytest.mark.parametrize("query", ["select=x", "a=eq.1", "order=a"])
def test_a_scalar_has_no_columns(api: Api, query: str) -> None:
    answer = api.post(f"/rpc/add?{query}", {"a": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "42703")
    assert answer.json()["message"].startswith("column add.")


def test_what_is_new_or_changed_is_seen_at_once(api: Api) -> None:
    assert api.rpc("young").status_code == 404
    assert api.get("/young").status_code == 404
    owner = api.connection
    owner.execute("create function young(a int) returns int language sql as 'select a'")
    assert api.rpc("young", a=1).json() == 1
    owner.execute("drop function young; ")
    owner.execute("create function young(b int, c int) returns int language sql as 'select b + c'")
    assert api.rpc("young", b=1, c=2).json() == 3
    owner.execute("create table young (a int); grant select, insert on young to service_role")
    assert api.get("/young").json() == []
    owner.execute("alter table young add b int; alter table young drop a")
    assert api.post("/young", {"b": 2}).status_code == 201
    owner.execute("drop table young; drop function young")
    assert api.get("/young").status_code == 404


@pytest.mark.parametrize(
    "name",
    ["add(a => 1); drop table people; --", 'add"; drop table people; --', "pg_catalog.now", "../people"],
)
def test_names_stay_names(api: Api, name: str) -> None:
    answer = api.request("POST", f"/rpc/{name.replace(';', '%3B').replace('/', '%2F')}", json={})
    assert answer.status_code == 404
    assert len(api.rows("select 1 from people")) == 4


def test_argument_names_stay_names(api: Api) -> None:
    assert api.rpc("add", **{'a" int); drop table people; --': 1}).status_code == 404
    assert api.get('/rpc/add?a"%20:=%201);--=1').status_code == 404
