"""Reading tables with supabase-py."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from postgrest import CountMethod
from postgrest.exceptions import APIError

from tests.conformance.cases import ANY, Case, parametrize, problem, refused, run
from tests.conformance.conftest import Build, World

ADA = {
    "id": 1,
    "name": "Ada",
    "age": 36,
    "tags": ["math", "code"],
    "data": {"lang": {"first": "en"}, "n": [1, 2]},
    "email": "ada@x",
    "mood": "happy",
    "born": "1815-12-10",
    "score": 9.50,
    "span": "[1,5)",
    "created_at": "2026-01-02T03:04:05.678+00:00",
}
EXACT, PLANNED, ESTIMATED = CountMethod.exact, CountMethod.planned, CountMethod.estimated


def people(columns: str = "id", **options: Any) -> Build:
    """The start of a query, to be called with the world."""
    return lambda world: world.table("people").select(*columns.split(","), **options)


def ids(*numbers: int) -> list[dict[str, int]]:
    return [{"id": number} for number in numbers]


SHAPES = [
    Case("all columns in their order", lambda w: w.table("people").select("*").eq("id", 1), [ADA]),
    Case("some columns", lambda w: people("name,age")(w).eq("id", 1), [{"name": "Ada", "age": 36}]),
    Case(
        "spaces in select",
        lambda w: w.table("people").select(" id , name ").eq("id", 2),
        [{"id": 2, "name": "Bob"}],
    ),
    Case("an alias", lambda w: people("who:name")(w).eq("id", 1), [{"who": "Ada"}]),
    Case("a cast", lambda w: people("age::text")(w).eq("id", 1), [{"age": "36"}]),
    Case("an alias and a cast", lambda w: people("a:age::text")(w).eq("id", 1), [{"a": "36"}]),
    Case("json inside", lambda w: people("data->lang")(w).eq("id", 1), [{"lang": {"first": "en"}}]),
    Case("json inside as text", lambda w: people("data->lang->>first")(w).eq("id", 1), [{"first": "en"}]),
    Case("json inside with an alias", lambda w: people("l:data->lang->first")(w).eq("id", 1), [{"l": "en"}]),
    Case("an element of an array in json", lambda w: people("x:data->n->1")(w).eq("id", 1), [{"x": 2}]),
    Case("nothing found", lambda w: people()(w).eq("id", 99), [], range="*/*"),
    Case(
        "a view",
        lambda w: w.table("adults").select("*").order("id"),
        [{"id": 1, "name": "Ada"}, {"id": 4, "name": "dora"}],
    ),
    Case(
        "names that need quotes",
        lambda w: w.table('Odd "Table').select('"a \\"column"', "select", '"x,y"').order("select"),
        [{'a "column': 1, "select": "one", "x,y": "x"}, {'a "column': 2, "select": "two", "x,y": "y"}],
    ),
    Case("order", lambda w: people()(w).order("name"), ids(1, 2, 3, 4)),
    Case("order descending puts nulls first", lambda w: people()(w).order("age", desc=True), ids(3, 4, 1, 2)),
    Case("order ascending puts nulls last", lambda w: people()(w).order("age"), ids(2, 1, 4, 3)),
    Case("order with nulls first", lambda w: people()(w).order("age", nullsfirst=True), ids(3, 2, 1, 4)),
    Case(
        "order descending, nulls last",
        lambda w: people()(w).order("age", desc=True, nullsfirst=False),
        ids(4, 1, 2, 3),
    ),
    Case("order by two columns", lambda w: people()(w).order("mood").order("id", desc=True), ids(3, 2, 1, 4)),
    Case("order by json", lambda w: people()(w).order("data->lang->>first").limit(2), ids(2, 1)),
    Case("limit", lambda w: people()(w).order("id").limit(2), ids(1, 2), range="0-1/*"),
    Case("limit 0", lambda w: people()(w).limit(0), [], range="*/*"),
    Case("offset", lambda w: people()(w).order("id").offset(3), ids(4), range="3-3/*"),
    Case("range", lambda w: people()(w).order("id").range(1, 2), ids(2, 3), range="1-2/*"),
    Case("range beyond the end", lambda w: people()(w).order("id").range(3, 9), ids(4), range="3-3/*"),
    Case("range after the end", lambda w: people()(w).range(50, 59), [], range="*/*"),
    Case(
        "count exact of everything",
        lambda w: people(count=EXACT)(w).order("id"),
        ids(1, 2, 3, 4),
        200,
        "0-3/4",
        4,
    ),
    Case(
        "count exact of a page",
        lambda w: people(count=EXACT)(w).order("id").limit(1),
        ids(1),
        206,
        "0-0/4",
        4,
    ),
    Case(
        "count exact of a later page",
        lambda w: people(count=EXACT)(w).order("id").range(2, 2),
        ids(3),
        206,
        "2-2/4",
        4,
    ),
    Case("count exact of nothing", lambda w: people(count=EXACT)(w).eq("id", 99), [], 200, "*/0", 0),
    Case(
        "count minds filters",
        lambda w: people(count=EXACT)(w).gt("age", 20).limit(1),
        [{"id": 1}],
        206,
        "0-0/2",
        2,
    ),
    # The planner's guess may be any number.
    Case("count planned", lambda w: people(count=PLANNED)(w).order("id"), ids(1, 2, 3, 4), ANY),
    Case("count estimated", lambda w: people(count=ESTIMATED)(w).order("id"), ids(1, 2, 3, 4), count=4),
    Case("head counts without rows", lambda w: people(count=EXACT, head=True)(w), [], 200, "0-3/4", 4),
    Case("offset equal to the count", lambda w: people(count=EXACT)(w).offset(4), [], 206, "*/4", 4),
    Case(
        "single",
        lambda w: people("name")(w).eq("id", 2).single(),
        {"name": "Bob"},
        headers={"content-type": "application/vnd.pgrst.object+json; charset=utf-8"},
    ),
    Case(
        "maybe single that is there", lambda w: people("name")(w).eq("id", 2).maybe_single(), {"name": "Bob"}
    ),
    Case("maybe single that is not", lambda w: people("name")(w).eq("id", 99).maybe_single(), None),
    Case(
        "max rows cuts off silently",
        lambda w: w.table("many").select("n").order("n"),
        [{"n": n} for n in range(1, 1001)],
        range="0-999/*",
    ),
    Case(
        "max rows and a count",
        lambda w: w.table("many").select("n", count=EXACT).order("n").limit(1100),
        [{"n": n} for n in range(1, 1001)],
        206,
        "0-999/1100",
        1100,
    ),
]

REFUSED = [
    Case(
        "an unknown table",
        lambda w: w.table("nowhere").select("*"),
        **refused(404, "PGRST205"),
    ),
    Case(
        "an unknown column",
        lambda w: people("nothing")(w),
        **refused(400, "42703", details=None),
    ),
    Case(
        "an unknown filter column",
        lambda w: people()(w).eq("nothing", 1),
        **refused(400, "42703", details=None),
    ),
    Case(
        "an unknown order column",
        lambda w: people()(w).order("nothing"),
        **refused(400, "42703", details=None),
    ),
    Case(
        "a value of another type",
        lambda w: people()(w).eq("age", "old"),
        **refused(400, "22P02", 'invalid input syntax for type integer: "old"', None, None),
    ),
    Case(
        "an enum value that is not there",
        lambda w: people()(w).eq("mood", "grumpy"),
        **refused(400, "22P02"),
    ),
    Case(
        "an operator that is not there",
        lambda w: people()(w).filter("age", "around", "1"),
        **refused(400, "PGRST100"),
    ),
    Case(
        "is of something else",
        lambda w: people()(w).filter("age", "is", "5"),
        **refused(400, "PGRST100"),
    ),
    Case(
        "a tree that does not end",
        lambda w: people()(w).or_("id.eq.1,and(id.eq.2"),
        **refused(400, "PGRST100"),
    ),
    Case(
        "an operator the type lacks",
        lambda w: people()(w).like("age", "1%"),
        **refused(404, "42883"),
    ),
    Case(
        "single of nothing",
        lambda w: people()(w).eq("id", 99).single(),
        **refused(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            "The result contains 0 rows",
            None,
        ),
    ),
    Case(
        "single of two",
        lambda w: people()(w).lt("id", 3).single(),
        **refused(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            "The result contains 2 rows",
            None,
        ),
    ),
    Case(
        "an offset behind the end, counted",
        lambda w: people(count=EXACT)(w).offset(50),
        status=416,
        range="*/4",
        error=problem(
            "PGRST103",
            "Requested range not satisfiable",
            "An offset of 50 was requested, but there are only 4 rows.",
            None,
        ),
    ),
    Case(
        "an aggregate",
        lambda w: people("age.sum()")(w),
        **refused(400, "PGRST123", "Use of aggregate functions is not allowed", None, None),
    ),
    Case("no rights", lambda w: w.table("quiet").select("*"), **refused(403, "42501")),
    Case(
        "no rights, anonymous",
        lambda w: w.anon.table(w.target.name("notes")).select("*"),
        **refused(401, "42501"),
    ),
    Case(
        "a schema that is not exposed",
        lambda w: w.service.schema("auth").table("users").select("*"),
        **refused(406, "PGRST106", "Invalid schema: auth", None),
    ),
]


@parametrize(*SHAPES)
def test_shapes(world: World, case: Case) -> None:
    run(world, case)


@parametrize(*REFUSED)
def test_refused(world: World, case: Case) -> None:
    run(world, case)


def test_maybe_single_of_two_is_an_error(world: World) -> None:
    with pytest.raises(APIError) as caught:
        people()(world).lt("id", 3).maybe_single().execute()
    assert caught.value.code == "406"


def test_a_uuid_that_is_none(world: World) -> None:
    case = Case(
        "uuid",
        lambda w: w.table("notes").select("*").eq("owner_id", "nobody"),
        **refused(400, "22P02", 'invalid input syntax for type uuid: "nobody"', None, None),
    )
    run(world, case)
    good = Case("uuid", lambda w: w.table("notes").select("*").eq("owner_id", uuid.uuid4()), [])
    run(world, good)


def test_what_every_answer_says(world: World) -> None:
    answer = run(world, Case("", lambda w: people()(w).eq("id", 1), ids(1), range="0-0/*"))
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    # supabase-py names the schema in every request, and hears which it was.
    assert answer.headers["content-profile"] == "public"
    assert answer.text == '[{"id":1}]'


def test_head_answers_like_get_without_a_body(world: World) -> None:
    people("id", count=EXACT, head=True)(world).eq("id", 99).execute()
    answer = world.answers[-1]
    assert (answer.request.method, answer.content) == ("HEAD", b"")
    assert answer.headers["content-range"] == "*/0"


def test_the_key_inside_json_has_its_own_type(world: World) -> None:
    data = people("data->n")(world).eq("id", 1).execute().data
    assert data == [{"n": [1, 2]}]
