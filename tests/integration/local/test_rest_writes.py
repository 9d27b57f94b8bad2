"""Writing to tables over REST."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.local.conftest import Api

SHOW = "return=representation"
ALL = "select id, name, age from people order by id"


def test_an_insert_says_nothing_unless_asked(api: Api) -> None:
    answer = api.post("/people", {"name": "Eve"})
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (201, b"", "*/*")
    assert api.rows("select name, mood from people where id = 5") == [("Eve", "ok")]


def test_an_insert_returns_what_it_made(api: Api) -> None:
    answer = api.post("/people?select=id,name,mood", {"name": "Eve", "age": 3}, f"{SHOW},count=exact")
    assert (answer.status_code, answer.headers["content-range"]) == (201, "*/1")
    assert answer.headers["preference-applied"] == "return=representation, count=exact"
    assert answer.json() == [{"id": 5, "name": "Eve", "mood": "ok"}]


def test_values_get_the_types_of_their_columns(api: Api) -> None:
    row = {
        "name": "Eve",
        "age": "7",
        "tags": ["a b", 'c"d', None],
        "data": {"x": [1, None, {"y": "ü"}]},
        "mood": "sad",
        "born": "2001-02-03",
        "score": "1.005",
        "created_at": "2026-05-06T07:08:09+02:00",
    }
    made = api.post("/people", row, SHOW).json()[0]
    assert made["age"] == 7
    assert made["tags"] == row["tags"]
    assert made["data"] == row["data"]
    assert made["score"] == 1.01
    assert made["created_at"] == "2026-05-06T05:08:09+00:00"


def test_many_rows(api: Api) -> None:
    answer = api.post("/people", [{"name": "E", "age": 1}, {"name": "F", "age": None}], SHOW)
    assert [(row["name"], row["age"]) for row in answer.json()] == [("E", 1), ("F", None)]


def test_an_empty_list_inserts_nothing(api: Api) -> None:
    answer = api.post("/people", [], SHOW)
    assert (answer.status_code, answer.json()) == (201, [])
    assert len(api.rows(ALL)) == 4


def test_rows_without_columns_are_all_defaults(api: Api) -> None:
    assert api.post("/people", {}, SHOW).json()[0]["name"] == "nobody"
    assert len(api.post("/people", [{}, {}], SHOW).json()) == 2


def test_keys_of_a_list_must_match(api: Api) -> None:
    answer = api.post("/people", [{"name": "E"}, {"age": 1}])
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "PGRST102",
        "message": "All object keys must match",
        "details": None,
        "hint": None,
    }


def test_with_columns_missing_keys_are_null_and_others_ignored(api: Api) -> None:
    rows = [{"name": "E"}, {"name": "F", "age": 2, "email": "ignored"}]
    made = api.post('/people?columns="name","age"', rows, SHOW).json()
    assert [(row["name"], row["age"], row["email"]) for row in made] == [("E", None, None), ("F", 2, None)]
    # The price of mixed keys: null is written over the default.
    made = api.post("/people?columns=name,mood", [{"name": "E"}, {"name": "F", "mood": "sad"}], SHOW).json()
    assert [row["mood"] for row in made] == [None, "sad"]


def test_missing_keys_can_be_defaults(api: Api) -> None:
    rows = [{"name": "E"}, {"mood": "sad"}, {"id": 50, "mood": None}]
    made = api.post("/people?columns=id,name,mood,created_at", rows, f"{SHOW},missing=default").json()
    assert [(row["id"], row["name"], row["mood"]) for row in made] == [
        (5, "E", "ok"),
        (6, "nobody", "sad"),
        (50, "nobody", None),
    ]
    assert made[0]["created_at"] == "2026-01-02T03:04:05.678+00:00"


@pytest.mark.parametrize("query", ["", "?columns=id,wrong"])
def test_an_unknown_column_is_named(api: Api, query: str) -> None:
    answer = api.post(f"/people{query}", {"id": 9, "wrong": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST204")
    assert answer.json()["message"] == "Could not find the 'wrong' column of 'people' in the schema cache"


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "application/json", "Empty or invalid json"),
        (b"{", "application/json", "Empty or invalid json"),
        (b'{"age": NaN}', "application/json", "Empty or invalid json"),
        (b"\xff", "application/json", "Empty or invalid json"),
        (b"[" * 100_000, "application/json", "Empty or invalid json"),
        (b"5", "application/json", "Request body must be a JSON object"),
        (b"[1]", "application/json", "All object keys must match"),
        (b"name,age\nEve", "text/csv", "All lines must have same number of fields"),
        (b"", "text/csv", "the CSV has no line of names"),
        (b'name\n"Eve', "text/csv", "the CSV cannot be read"),
        (b"{}", "application/vnd.api+json", "Content-Type not acceptable: application/vnd.api+json"),
        (b"{}", "text/plain", "Content-Type not acceptable: text/plain"),
        (b"{}", "application/octet-stream", "Content-Type not acceptable: application/octet-stream"),
    ],
)
def test_bodies_that_cannot_be_used(api: Api, body: bytes, content_type: str, message: str) -> None:
    answer = api.request("POST", "/people", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")
    assert message in answer.json()["message"]


def test_a_merge_updates_what_is_there(api: Api) -> None:
    rows = [{"id": 1, "name": "Ada L."}, {"id": 9, "name": "New"}]
    answer = api.post("/people?select=id,name,age", rows, f"{SHOW},resolution=merge-duplicates")
    assert answer.status_code == 201
    assert answer.json() == [{"id": 1, "name": "Ada L.", "age": 36}, {"id": 9, "name": "New", "age": None}]


def test_a_merge_that_creates_nothing_is_a_200(api: Api) -> None:
    answer = api.post("/people", {"id": 1, "name": "Ada L."}, "resolution=merge-duplicates")
    assert answer.status_code == 200
    assert api.post("/people", {"id": 9, "name": "x"}, "resolution=merge-duplicates").status_code == 201


def test_a_merge_on_another_key(api: Api) -> None:
    rows = [{"email": "ada@x", "name": "A"}]
    prefer = f"{SHOW},resolution=merge-duplicates"
    assert api.post("/people?on_conflict=email&select=id,name", rows, prefer).json() == [
        {"id": 1, "name": "A"}
    ]
    answer = api.post("/people?on_conflict=age", rows, prefer)
    assert (answer.status_code, answer.json()["code"]) == (400, "42P10")


def test_duplicates_can_be_ignored(api: Api) -> None:
    rows = [{"id": 1, "name": "ignored"}, {"id": 9, "name": "new"}]
    answer = api.post("/people?select=id", rows, f"{SHOW},resolution=ignore-duplicates")
    assert (answer.status_code, answer.json()) == (201, [{"id": 9}])
    assert api.rows("select name from people where id = 1") == [("Ada",)]


def test_a_duplicate_is_a_conflict(api: Api) -> None:
    answer = api.post("/people", {"id": 1, "name": "again"})
    assert answer.status_code == 409
    assert answer.headers["proxy-status"] == "PostgREST; error=23505"
    assert answer.json() == {
        "code": "23505",
        "message": 'duplicate key value violates unique constraint "people_pkey"',
        "details": "Key (id)=(1) already exists.",
        "hint": None,
    }


def test_an_update_changes_what_matches(api: Api) -> None:
    answer = api.request(
        "PATCH", "/people?age=gt.20", json={"age": 1}, headers={"Prefer": f"{SHOW},count=exact"}
    )
    assert (answer.status_code, answer.headers["content-range"]) == (200, "0-1/2")
    assert {row["id"]: row["age"] for row in answer.json()} == {1: 1, 4: 1}
    answer = api.request("PATCH", "/people?id=eq.1", json={"age": None, "data": [1]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.rows("select age, data from people where id = 1") == [(None, [1])]


@pytest.mark.parametrize(("prefer", "status", "body"), [(SHOW, 200, b"[]"), ("", 204, b"")])
def test_no_match_is_no_error(api: Api, prefer: str, status: int, body: bytes) -> None:
    for method, payload in (("PATCH", {"age": 1}), ("DELETE", {})):
        answer = api.request(method, "/people?id=eq.99", json=payload, headers={"Prefer": prefer})
        assert (answer.status_code, answer.content) == (status, body)
        assert answer.headers["content-range"] == "*/*"


def test_an_update_of_nothing(api: Api) -> None:
    answer = api.request("PATCH", "/people?id=eq.1", json={}, headers={"Prefer": SHOW})
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_delete_returns_what_is_gone(api: Api) -> None:
    answer = api.request(
        "DELETE", "/people?id=in.(1,2)&select=id", json={}, headers={"Prefer": f"{SHOW},count=exact"}
    )
    assert (answer.status_code, answer.headers["content-range"]) == (200, "*/2")
    assert answer.json() == [{"id": 1}, {"id": 2}]
    assert len(api.rows(ALL)) == 2


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_all_rows_are_never_meant(api: Api, method: str) -> None:
    answer = api.request(method, "/people", json={"age": 1})
    what = "UPDATE" if method == "PATCH" else "DELETE"
    assert (answer.status_code, answer.json()["code"]) == (400, "21000")
    assert answer.json()["message"] == f"{what} requires a WHERE clause"


@pytest.mark.parametrize(
    ("method", "path", "body", "rows"),
    [
        ("PATCH", "/people?id=lt.3", {"age": 1}, 2),
        ("PATCH", "/people?id=eq.99", {"age": 1}, 0),
        ("DELETE", "/people?id=lt.3", {}, 2),
        ("POST", "/people", [{"name": "E"}, {"name": "F"}], 2),
    ],
)
def test_a_single_result_that_is_none_is_rolled_back(
    api: Api, method: str, path: str, body: Any, rows: int
) -> None:
    before = api.rows(ALL)
    headers = {"Prefer": SHOW, "Accept": "application/vnd.pgrst.object+json"}
    answer = api.request(method, path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert answer.json()["details"] == f"The result contains {rows} rows"
    assert api.rows(ALL) == before


def test_a_single_result_is_a_bare_object(api: Api) -> None:
    headers = {"Prefer": SHOW, "Accept": "application/vnd.pgrst.object+json"}
    answer = api.request("PATCH", "/people?id=eq.1&select=age", json={"age": 1}, headers=headers)
    assert answer.json() == {"age": 1}
    assert api.rows("select age from people where id = 1") == [(1,)]


def test_max_affected_protects(api: Api) -> None:
    prefer = {"Prefer": "handling=strict,max-affected=1"}
    answer = api.request("DELETE", "/people?id=lt.3", headers=prefer)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST124")
    assert answer.json()["details"] == "The query affects 2 rows"
    assert len(api.rows(ALL)) == 4
    assert api.request("DELETE", "/people?id=eq.1", headers=prefer).status_code == 204
    # Without strict handling it is a wish that nobody grants.
    assert api.request("DELETE", "/people?id=gt.1", headers={"Prefer": "max-affected=1"}).status_code == 204


def test_strict_handling_refuses_what_it_does_not_know(api: Api) -> None:
    answer = api.post("/people", {"name": "E"}, "handling=strict,wrong=1")
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST122")
    assert api.post("/people", {"name": "E"}, "wrong=1").status_code == 201


def test_a_role_that_may_only_write_can(api: Api) -> None:
    key = api.gateway.anon_key
    assert api.post("/log", {"id": 1, "line": "x"}, key=key).status_code == 201
    assert api.post("/log", {"id": 2, "line": "x"}, SHOW, key=key).status_code == 401


def test_a_refused_commit_is_an_error(api: Api) -> None:
    answer = api.post("/log", [{"id": 1, "line": "a"}, {"id": 1, "line": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (409, "23505")
    assert api.rows("select * from log") == []
    # The connection is as good as before.
    assert api.post("/log", {"id": 1, "line": "a"}).status_code == 201


def test_what_is_not_supported_is_named(api: Api) -> None:
    answer = api.post("/people", {"name": "x"}, "return=headers-only")
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST127")
    assert "return=headers-only" in answer.json()["details"]


def test_a_limit_is_not_for_writes(api: Api) -> None:
    """Supabase has dropped it: it is ignored, and what is shown can be sorted."""
    query = "id=gt.1&limit=1&offset=1&order=id.desc&select=id"
    answer = api.request("PATCH", f"/people?{query}", json={"age": 5}, headers={"Prefer": SHOW})
    assert [row["id"] for row in answer.json()] == [4, 3, 2]
    made = api.post("/people?order=name.desc&select=name&limit=1", [{"name": "x"}, {"name": "y"}], SHOW)
    assert made.json() == [{"name": "y"}, {"name": "x"}]


def test_put_writes_the_row_it_names(api: Api) -> None:
    show = {"Prefer": SHOW}
    path = "/people?id=eq.1&select=id,name,age"
    answer = api.request("PUT", path, json={"id": 1, "name": "Ada L.", "age": 37}, headers=show)
    assert (answer.status_code, answer.json()) == (200, [{"id": 1, "name": "Ada L.", "age": 37}])
    answer = api.request(
        "PUT", "/people?id=eq.20&select=id,name", json={"id": 20, "name": "New"}, headers=show
    )
    assert (answer.status_code, answer.json()) == (201, [{"id": 20, "name": "New"}])
    assert api.request("PUT", "/people?id=eq.20", json={"id": 20, "name": "Newer"}).status_code == 204
    assert api.rows("select id, name from people where id in (1, 20) order by 1") == [
        (1, "Ada L."),
        (20, "Newer"),
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/people?id=eq.2", 400, "PGRST115"),
        ("/people", 405, "PGRST105"),
        ("/people?name=eq.x", 405, "PGRST105"),
        ("/people?id=gt.0", 405, "PGRST105"),
        ("/people?id=eq.1&age=eq.1", 405, "PGRST105"),
        ("/people?id=eq.1&limit=1", 400, "PGRST114"),
    ],
)
def test_puts_that_are_refused(api: Api, path: str, status: int, code: str) -> None:
    answer = api.request("PUT", path, json={"id": 1, "name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert api.rows("select name from people where id = 1") == [("Ada",)]


def test_csv_and_forms_are_rows(api: Api) -> None:
    kind = {"Content-Type": "text/csv", "Prefer": SHOW}
    lines = 'name,age,tags\n"Eve, ""E""",30,"{a,b}"\nFay,NULL,NULL\n'
    answer = api.request("POST", "/people?select=name,age,tags", content=lines, headers=kind)
    assert answer.json() == [
        {"name": 'Eve, "E"', "age": 30, "tags": ["a", "b"]},
        {"name": "Fay", "age": None, "tags": None},
    ]
    form = api.request(
        "POST", "/people?select=name,age", data={"name": "G&H", "age": "7"}, headers={"Prefer": SHOW}
    )
    assert form.json() == [{"name": "G&H", "age": 7}]


def test_a_write_can_be_shown_as_csv(api: Api) -> None:
    headers = {"Accept": "text/csv", "Prefer": SHOW}
    answer = api.request(
        "PATCH", "/people?id=lt.3&select=id,name,age&order=id", json={"age": 1}, headers=headers
    )
    assert answer.text == "id,name,age\n1,Ada,1\n2,Bob,1"


def test_rows_are_merged_through_a_view(api: Api) -> None:
    """The view shows the table's primary key, by whatever name."""
    api.connection.execute(
        "create or replace view names as select p.id as number, p.name from people p;"
        "create or replace view names_again as select number as n, name from names;"
        "grant all on names, names_again to service_role"
    )
    merge = "resolution=merge-duplicates,return=representation"
    rows = [{"number": 1, "name": "Ada L."}, {"number": 30, "name": "New"}]
    answer = api.post("/names", rows, merge)
    assert (answer.status_code, answer.json()) == (201, rows)
    assert answer.headers["preference-applied"] == "resolution=merge-duplicates, return=representation"
    answer = api.post("/names_again", {"n": 1, "name": "Ada"}, merge)
    assert (answer.status_code, answer.json()) == (200, [{"n": 1, "name": "Ada"}])
    api.connection.execute("drop view names_again, names")


def test_a_large_body_passes_and_a_larger_one_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * 5_000_000
    made = api.post("/people?select=id,name", {"name": text}, SHOW)
    assert made.json()[0]["name"] == text
    monkeypatch.setattr("reactive_worker.local.limits.MAX_BODY", 2**20)
    assert api.post("/people", {"name": text}).status_code == 413
