"""Reading tables over REST."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.local.conftest import Api

OBJECT = {"Accept": "application/vnd.pgrst.object+json"}


def ids(api: Api, query: str) -> list[int]:
    answer = api.get(f"/people?select=id&order=id&{query}")
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()]


def test_everything_is_rendered_by_postgres(api: Api) -> None:
    answer = api.get("/people?id=eq.1")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["content-range"] == "0-0/*"
    assert answer.json() == [
        {
            "id": 1,
            "name": "Ada",
            "age": 36,
            "tags": ["math", "code"],
            "data": {"lang": {"first": "en"}, "n": [1, 2]},
            "email": "ada@x",
            "mood": "happy",
            "born": "1815-12-10",
            "score": 9.5,
            "created_at": "2026-01-02T03:04:05.678+00:00",
        }
    ]
    # The order of the columns is the table's, and numbers keep their scale.
    assert answer.text.startswith('[{"id":1,"name":"Ada","age":36,')
    assert '"score":9.50' in answer.text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("age=eq.36", [1]),
        ("age=neq.36", [2, 4]),
        ("age=gt.17", [1, 4]),
        ("age=gte.17&age=lt.52", [1, 2]),
        ("age=not.lte.36", [4]),
        ("age=is.null", [3]),
        ("age=not.is.null", [1, 2, 4]),
        ("age=is.not_null", [1, 2, 4]),
        ("age=isdistinct.36", [2, 3, 4]),
        ("age=in.(17,52)", [2, 4]),
        ("age=not.in.(17,52)", [1]),
        ("age=in.()", []),
        ("age=not.in.()", [1, 2, 3, 4]),
        ('name=in.("Cy, \\"C\\"",Bob)', [2, 3]),
        ('name=eq.Cy, "C"', [3]),
        ("name=like.*o*", [2, 4]),
        ("name=like.%o%", [2, 4]),
        ("name=ilike.D*", [4]),
        ("name=like(any).{A*,B*}", [1, 2]),
        ("name=match.^[A-C]", [1, 2, 3]),
        ("name=imatch.^d", [4]),
        ("tags=cs.{code}", [1, 2]),
        ("tags=cd.{code,x}", [2, 4]),
        ("tags=ov.{math,x}", [1]),
        ('data=cs.{"lang": {"first": "de"}}', [2]),
        ("data->lang->>first=eq.en", [1]),
        ("data->n->0=eq.1", [1]),
        ("data->n->>-1=eq.2", [1]),
        ("mood=eq.sad", [3]),
        ("age=eq(any).{17,36}", [1, 2]),
        ("or=(age.eq.17,and(age.gt.40,name.like.d*))", [2, 4]),
        ("not.or=(age.eq.17,age.gt.40)", [1]),
        ('or=(name.eq."Cy, \\"C\\"",tags.cs.{math,code})', [1, 3]),
        ("and=(age.gt.1,age.not.in.(17,36))", [4]),
        ("id=lt.3&limit=1", [1]),
        ("limit=2&offset=1", [2, 3]),
        ("limit=0", []),
    ],
)
def test_filters_mean_what_they_mean_in_postgrest(api: Api, query: str, expected: list[int]) -> None:
    assert ids(api, query) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("age", [2, 1, 4, 3]),
        ("age.desc", [3, 4, 1, 2]),
        ("age.desc.nullslast", [4, 1, 2, 3]),
        ("age.asc.nullsfirst", [3, 2, 1, 4]),
        ("data->lang->>first.desc.nullslast,id.desc", [1, 2, 4, 3]),
    ],
)
def test_order(api: Api, order: str, expected: list[int]) -> None:
    assert [row["id"] for row in api.get(f"/people?select=id&order={order}").json()] == expected


def test_columns_aliases_casts_and_paths(api: Api) -> None:
    query = "select=n:name,age::text,data->lang->>first,deep:data->n->1,score::int&id=eq.1"
    assert api.get(f"/people?{query}").json() == [
        {"n": "Ada", "age": "36", "first": "en", "deep": 2, "score": 10}
    ]


def test_odd_names_are_quoted(api: Api) -> None:
    columns = {'a "column': 1, "select": "s", "x,y": "z", "json_agg": "j"}
    table = "/Odd%20%22Table"
    assert api.post(table, columns, "return=representation").json() == [columns]
    query = 'select="a \\"column",select,"x,y"&"x,y"=eq.z&order="a \\"column".desc'
    assert api.get(f"{table}?{query}").json() == [{'a "column': 1, "select": "s", "x,y": "z"}]


def test_views_can_be_read(api: Api) -> None:
    assert [row["name"] for row in api.get("/adults?order=id").json()] == ["Ada", "dora"]


@pytest.mark.parametrize(
    ("query", "prefer", "status", "content_range", "rows"),
    [
        ("", "", 200, "0-3/*", 4),
        ("", "count=exact", 200, "0-3/4", 4),
        ("limit=2", "count=exact", 206, "0-1/4", 2),
        ("limit=2&offset=2", "count=exact", 206, "2-3/4", 2),
        ("limit=2&offset=2", "", 200, "2-3/*", 2),
        ("id=eq.99", "", 200, "*/*", 0),
        ("id=eq.99", "count=exact", 200, "*/0", 0),
        ("offset=4", "count=exact", 206, "*/4", 0),
        ("offset=9", "", 200, "*/*", 0),
        ("limit=1", "count=estimated", 206, "0-0/4", 1),
    ],
)
def test_content_range(api: Api, query: str, prefer: str, status: int, content_range: str, rows: int) -> None:
    answer = api.get(f"/people?{query}", prefer)
    assert answer.status_code == status
    assert answer.headers["content-range"] == content_range
    assert len(answer.json()) == rows


def test_an_offset_behind_the_end_is_no_range(api: Api) -> None:
    answer = api.get("/people?offset=5", "count=exact")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "*/4"
    assert answer.json() == {
        "code": "PGRST103",
        "message": "Requested range not satisfiable",
        "details": "An offset of 5 was requested, but there are only 4 rows.",
        "hint": None,
    }


def test_head_has_the_headers_and_no_body(api: Api) -> None:
    answer = api.request("HEAD", "/people", headers={"Prefer": "count=exact"})
    assert answer.status_code == 200
    assert answer.headers["content-range"] == "0-3/4"
    assert answer.headers["preference-applied"] == "count=exact"
    assert answer.content == b""


def test_range_headers_count_rows(api: Api) -> None:
    answer = api.request("GET", "/people?select=id&order=id", headers={"Range": "1-2", "Range-Unit": "items"})
    assert answer.json() == [{"id": 2}, {"id": 3}]
    assert answer.headers["content-range"] == "1-2/*"
    assert api.request("GET", "/people", headers={"Range": "2-1"}).status_code == 416
    assert len(api.request("GET", "/people", headers={"Range": "3-"}).json()) == 1


def test_max_rows_cuts_off_silently(api: Api) -> None:
    api.connection.execute("insert into people (name) select 'n' || n from generate_series(1, 1100) n")
    assert len(api.get("/people").json()) == 1000
    assert len(api.get("/people?limit=5000").json()) == 1000
    answer = api.get("/people?select=id", "count=exact")
    assert (answer.status_code, answer.headers["content-range"]) == (206, "0-999/1104")
    assert len(api.rpc("numbers", n=1500).json()) == 1000
    # Writes return all they have written.
    answer = api.request(
        "PATCH", "/people?age=is.null", json={"age": 1}, headers={"Prefer": "return=representation"}
    )
    assert len(answer.json()) == 1101


def test_one_object_is_bare(api: Api) -> None:
    answer = api.request("GET", "/people?id=eq.2&select=name", headers=OBJECT)
    assert answer.json() == {"name": "Bob"}
    assert answer.headers["content-type"] == "application/vnd.pgrst.object+json; charset=utf-8"


@pytest.mark.parametrize(("query", "found"), [("id=eq.99", 0), ("id=lt.3", 2)])
def test_one_object_must_be_exactly_one(api: Api, query: str, found: int) -> None:
    answer = api.request("GET", f"/people?{query}", headers=OBJECT)
    assert answer.status_code == 406
    assert answer.json() == {
        "code": "PGRST116",
        "message": "Cannot coerce the result to a single JSON object",
        "details": f"The result contains {found} rows",
        "hint": None,
    }


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/vnd.pgrst.array+json;nulls=stripped", [{"id": 3}]),
        ("application/vnd.pgrst.object+json;nulls=stripped", {"id": 3}),
    ],
)
def test_nulls_can_be_left_out(api: Api, accept: str, expected: Any) -> None:
    assert api.request("GET", "/people?id=eq.3&select=id,age", headers={"Accept": accept}).json() == expected


def test_media_types_are_negotiated(api: Api) -> None:
    for accept, kind in (
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("*/*, text/csv", "text/csv"),
        ("image/png, */*", "application/json"),
    ):
        answer = api.request("GET", "/people", headers={"Accept": accept})
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8", accept
    for accept in ("application/*", "text/html", "text/plain", "application/openapi+json"):
        answer = api.request("GET", "/people", headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (406, "PGRST107")
        assert answer.json()["message"] == f"None of these media types are available: {accept}"
    answer = api.request("GET", "/people", headers={"Accept": "application/geo+json"})
    assert (answer.status_code, answer.json()["details"]) == (
        400,
        "GeoJSON is not supported by the embedded Supabase",
    )


def test_a_planned_count_is_the_planners(api: Api) -> None:
    api.connection.execute("insert into log select n from generate_series(1, 500) n; analyze log")
    ((plan,),) = api.rows("explain (format json) select 1 from log where id < 100")
    planned = plan[0]["Plan"]["Plan Rows"]
    assert planned > 50
    answer = api.get("/log?select=id&id=lt.100&limit=1", "count=planned")
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"0-0/{planned}")
    # Fewer than max_rows are counted, of more it is the larger of what was counted and what is planned.
    assert api.get("/log?limit=1", "count=estimated").headers["content-range"] == "0-0/500"
    api.connection.execute("insert into log select n from generate_series(501, 1500) n; analyze log")
    ((plan,),) = api.rows("explain (format json) select 1 from log")
    total = max(plan[0]["Plan"]["Plan Rows"], 1001)
    assert api.get("/log?limit=1", "count=estimated").headers["content-range"] == f"0-0/{total}"


@pytest.mark.parametrize(
    ("header", "query", "found", "content_range"),
    [
        ("0-1", "", [1, 2], "0-1/*"),
        ("1-", "", [2, 3, 4], "1-3/*"),
        ("0-1", "limit=1", [1], "0-0/*"),
        ("0-9", "limit=2&offset=1", [2, 3], "1-2/*"),
        ("2-3", "limit=3", [3], "2-2/*"),
        ("2-3", "limit=0", [], "*/*"),
        ("bytes=0-1", "", [1, 2, 3, 4], "0-3/*"),
    ],
)
def test_a_range_beside_a_limit(
    api: Api, header: str, query: str, found: list[int], content_range: str
) -> None:
    answer = api.request("GET", f"/people?select=id&order=id&{query}", headers={"Range": header})
    assert [row["id"] for row in answer.json()] == found
    assert answer.headers["content-range"] == content_range


def test_a_range_that_misses_the_limit(api: Api) -> None:
    answer = api.request("GET", "/people?limit=2", headers={"Range": "5-9"})
    assert (answer.status_code, answer.json()["code"]) == (416, "PGRST103")


def test_a_time_zone_can_be_preferred(api: Api) -> None:
    query = "/people?select=created_at&id=eq.1"
    answer = api.get(query, "timezone=America/Los_Angeles")
    assert answer.json() == [{"created_at": "2026-01-01T19:04:05.678-08:00"}]
    assert answer.headers["preference-applied"] == "timezone=America/Los_Angeles"
    for unknown in ("timezone=Jupiter/Red_Spot", "timezone="):
        answer = api.get(query, unknown)
        assert answer.json() == [{"created_at": "2026-01-02T03:04:05.678+00:00"}]
        assert "preference-applied" not in answer.headers
    assert api.get(query, "handling=strict, timezone=Jupiter/Red_Spot").json()["code"] == "PGRST122"
    made = api.post("/people", {"name": "x", "id": 9}, "timezone=Asia/Tokyo, return=representation")
    assert made.json()[0]["created_at"] == "2026-01-02T12:04:05.678+09:00"


def test_other_schemas_are_named_in_a_profile_header(api: Api) -> None:
    both = {"Accept-Profile": "public", "Content-Profile": "public"}
    assert api.request("GET", "/people?select=id", headers=both).headers["content-profile"] == "public"
    answer = api.request("GET", "/people", headers={"Accept-Profile": "hidden"})
    assert answer.status_code == 406
    assert answer.json()["code"] == "PGRST106"
    assert answer.json()["message"] == "Invalid schema: hidden"
    assert "public, graphql_public" in answer.json()["hint"]


def test_the_root_answers(api: Api) -> None:
    answer = api.get("/")
    assert (answer.status_code, answer.json()["code"]) == (404, "PGRST126")
    assert "OpenAPI" in answer.json()["details"]


@pytest.mark.parametrize(
    "query",
    [
        "name=eq.' or '1'='1",
        "name=eq.x'; drop table people; --",
        'name=in.("\'); drop table people; --")',
        "name=like.*'; drop table people; --",
        'tags=cs.{"\'); drop table people; --"}',
        'or=(name.eq."\'; drop table people; --")',
        "data->>'; drop table people; --=eq.1",
        "data->>a' or true or 'a=eq.1",
    ],
)
def test_values_stay_values(api: Api, query: str) -> None:
    assert ids(api, query.replace(";", "%3B").replace("#", "%23")) == []
    assert len(api.rows("select 1 from people")) == 4


@pytest.mark.parametrize(
    "query",
    [
        'select="name\\" from secret --"',
        'order="id\\"; drop table people; --"',
        '"name\\" = \'\' or true --"=eq.x',
        "select=id::int) from secret --",
        "select=id::text collate x",
        "select=pg_sleep(10)",
        'columns="id\\") values (1); --"',
    ],
)
def test_names_stay_names(api: Api, query: str) -> None:
    answer = api.get("/people?" + query.replace(";", "%3B"))
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code == 200:
        # `columns` means nothing for a read.
        assert query.startswith("columns")
    assert len(api.rows("select 1 from people")) == 4


def test_a_zero_byte_does_not_end_a_value(api: Api) -> None:
    answer = api.get("/people?name=eq.Ada%00x")
    assert (answer.status_code, answer.json()["code"]) == (400, "22021")
