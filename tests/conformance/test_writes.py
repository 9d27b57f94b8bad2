"""Writing tables with supabase-py: what the answer says, and what the table holds afterwards."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from postgrest import CountMethod, ReturnMethod

from tests.conformance.cases import ANY, Case, parametrize, refused, run
from tests.conformance.conftest import World

MINIMAL, EXACT = ReturnMethod.minimal, CountMethod.exact


def writes(name: str, change: Callable[[Any], Any], data: Any = ANY, status: int = 201, **more: Any) -> Case:
    """A change of people."""
    return Case(name, lambda world: change(world.table("people")), data, status, **more)


INSERTS = [
    writes("one row", lambda t: t.insert({"name": "Eve"}), [ANY], range="*/*"),
    writes(
        "one row, nothing returned", lambda t: t.insert({"name": "Eve"}, returning=MINIMAL), [], range="*/*"
    ),
    writes(
        "a count",
        lambda t: t.insert([{"name": "E"}, {"name": "F"}], count=EXACT),
        [ANY, ANY],
        count=2,
        range="*/2",
    ),
    writes("no rows", lambda t: t.insert([]), [], range="*/*"),
    writes("an empty object", lambda t: t.insert({}), [ANY]),
    writes(
        "a null into a column that takes none",
        lambda t: t.insert({"name": None}),
        **refused(400, "23502", ANY, ANY, None),
    ),
    writes(
        "a key that is there",
        lambda t: t.insert({"email": "ada@x"}),
        **refused(409, "23505", ANY, "Key (email)=(ada@x) already exists.", None),
    ),
    writes("a check that fails", lambda t: t.insert({"age": -1}), **refused(400, "23514", hint=None)),
    writes(
        "a text too long",
        lambda t: t.insert({"email": "x" * 31}),
        **refused(400, "22001", "value too long for type character varying(30)", None, None),
    ),
    writes(
        "a column that is not there",
        lambda t: t.insert({"nothing": 1}),
        **refused(400, "PGRST204", ANY, None, None),
    ),
    writes(
        "a type that does not fit",
        lambda t: t.insert({"age": "old"}),
        **refused(400, "22P02", 'invalid input syntax for type integer: "old"', None, None),
    ),
    writes("a number out of range", lambda t: t.insert({"age": 99999999999}), **refused(400, ANY)),
    writes("an always generated value is kept", lambda t: t.insert({"id": 77, "name": "x"}), [ANY]),
    writes("upsert of a new row", lambda t: t.upsert({"id": 50, "name": "New"}), [ANY], 201),
    writes("upsert of a row that is there", lambda t: t.upsert({"id": 1, "name": "Ada L."}), [ANY], 200),
    writes(
        "upsert of both",
        lambda t: t.upsert([{"id": 1, "name": "a"}, {"id": 51, "name": "b"}]),
        [ANY, ANY],
        201,
    ),
    writes(
        "upsert by another key",
        lambda t: t.upsert({"email": "ada@x", "name": "L"}, on_conflict="email"),
        [ANY],
        200,
    ),
    writes(
        "upsert that ignores", lambda t: t.upsert({"id": 1, "name": "no"}, ignore_duplicates=True), [], 201
    ),
    writes(
        "upsert, nothing returned", lambda t: t.upsert({"id": 1, "name": "A"}, returning=MINIMAL), [], 200
    ),
    writes(
        "upsert by a column that is no key",
        lambda t: t.upsert({"name": "x"}, on_conflict="age"),
        **refused(400, "42P10", ANY, None, None),
    ),
]

CHANGES = [
    writes("update", lambda t: t.update({"age": 1}).eq("id", 1), [ANY], 200, range="0-0/*"),
    writes("update of several", lambda t: t.update({"age": 1}).lt("id", 3), [ANY, ANY], 200, range="0-1/*"),
    writes("update of none", lambda t: t.update({"age": 1}).eq("id", 99), [], 200, range="*/*"),
    writes(
        "update, nothing returned", lambda t: t.update({"age": 1}, returning=MINIMAL).eq("id", 1), [], 204
    ),
    writes(
        "update of none, nothing returned",
        lambda t: t.update({"age": 1}, returning=MINIMAL).eq("id", 9),
        [],
        204,
    ),
    writes(
        "update with a count",
        lambda t: t.update({"age": 1}, count=EXACT).gt("id", 2),
        [ANY, ANY],
        200,
        count=2,
    ),
    writes("update of nothing", lambda t: t.update({}).eq("id", 1), [], 200),
    writes("update to null", lambda t: t.update({"age": None}).eq("id", 1), [ANY], 200),
    writes("update by a tree", lambda t: t.update({"age": 1}).or_("id.eq.1,id.eq.2"), [ANY, ANY], 200),
    writes(
        "update of a column that is not there",
        lambda t: t.update({"nothing": 1}).eq("id", 1),
        **refused(400, "PGRST204", ANY, None, None),
    ),
    writes(
        "update of a key to one that is there",
        lambda t: t.update({"email": "bob@x"}).eq("id", 1),
        **refused(409, "23505", hint=None),
    ),
    writes(
        "update without a filter",
        lambda t: t.update({"age": 1}),
        **refused(400, "21000", "UPDATE requires a WHERE clause", None, None),
    ),
    writes("delete", lambda t: t.delete().eq("id", 1), [ANY], 200, range="*/*"),
    writes("delete of none", lambda t: t.delete().eq("id", 99), [], 200, range="*/*"),
    writes("delete, nothing returned", lambda t: t.delete(returning=MINIMAL).eq("id", 1), [], 204),
    writes(
        "delete with a count",
        lambda t: t.delete(count=EXACT).gt("id", 2),
        [ANY, ANY],
        200,
        count=2,
        range="*/2",
    ),
    writes("delete by a list", lambda t: t.delete().in_("id", [1, 2, 99]), [ANY, ANY], 200),
    writes(
        "delete without a filter",
        lambda t: t.delete(),
        **refused(400, "21000", "DELETE requires a WHERE clause", None, None),
    ),
]


@parametrize(*INSERTS)
def test_inserts(fresh: World, case: Case) -> None:
    run(fresh, case)


@parametrize(*CHANGES)
def test_changes(fresh: World, case: Case) -> None:
    run(fresh, case)


def test_defaults_apply_to_what_one_row_leaves_out(fresh: World) -> None:
    (row,) = fresh.table("people").insert({"age": 5}).execute().data
    assert (row["id"], row["name"], row["mood"], row["created_at"]) == (
        5,
        "nobody",
        "ok",
        "2026-01-02T03:04:05.678+00:00",
    )


def test_rows_of_different_keys_get_null_unless_asked_otherwise(fresh: World) -> None:
    rows = fresh.table("people").insert([{"name": "F"}, {"name": "G", "mood": "sad"}]).execute().data
    assert [row["mood"] for row in rows] == [None, "sad"]
    rows = [{"name": "H"}, {"name": "I", "mood": "sad"}]
    rows = fresh.table("people").insert(rows, default_to_null=False).execute().data
    assert [row["mood"] for row in rows] == ["ok", "sad"]
    assert fresh.answers[-1].headers["preference-applied"] == "missing=default, return=representation"


def test_python_values_arrive(fresh: World) -> None:
    row = {
        "name": "snow ☃ \u0001 \\ \"quoted\" 'single'\n",
        "tags": ["a,b", 'c"d', "", "{e}", "null"],
        "data": {"deep": [[{"x": None}], 1.5, True, "é"]},
        "born": datetime.date(2000, 2, 29),
        "created_at": datetime.datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.UTC),
        "score": "123.45",
        "span": "[3,7]",
        "mood": "sad",
    }
    (made,) = fresh.table("people").insert(row).execute().data
    assert made["name"] == row["name"]
    assert made["tags"] == row["tags"]
    assert made["data"] == row["data"]
    assert made["born"] == "2000-02-29"
    assert made["created_at"] == "2026-05-06T07:08:09.123456+00:00"
    assert made["score"] == 123.45
    assert made["span"] == "[3,8)"
    (kept,) = fresh.target.sql(f"select name, score, data from rwc_people where id = {made['id']}")
    assert kept == (row["name"], decimal.Decimal("123.45"), row["data"])


def test_numbers_keep_all_their_digits(fresh: World) -> None:
    fresh.target.sql("insert into rwc_jobs (num) values (12345678901234567890.123456789)")
    fresh.table("jobs").select("num").execute()
    assert fresh.answers[-1].text == '[{"num":12345678901234567890.123456789}]'


def test_an_upsert_sets_only_what_is_sent(fresh: World) -> None:
    fresh.table("people").upsert({"id": 1, "name": "Ada L."}).execute()
    assert fresh.target.sql("select name, age, email from rwc_people where id = 1") == [
        ("Ada L.", 36, "ada@x")
    ]


def test_a_refused_list_inserts_nothing(fresh: World) -> None:
    rows = [{"name": "fine"}, {"name": "not", "email": "ada@x"}]
    case = writes("", lambda t: t.insert(rows), **refused(409, "23505", hint=None))
    run(fresh, case)
    assert fresh.target.sql("select count(*) from rwc_people") == [(4,)]


def test_a_reference_that_leads_nowhere(fresh: World) -> None:
    case = Case(
        "",
        lambda w: w.table("log").insert({"id": 1, "person_id": 99}),
        **refused(409, "23503", ANY, ANY, None),
    )
    answer = run(fresh, case)
    assert "is not present in table" in answer.json()["details"]


def test_max_affected_rolls_back(fresh: World) -> None:
    case = writes(
        "",
        lambda t: t.delete().gt("id", 0).max_affected(2),
        **refused(
            400,
            "PGRST124",
            "Query result exceeds max-affected preference constraint",
            "The query affects 4 rows",
            None,
        ),
    )
    run(fresh, case)
    assert fresh.target.sql("select count(*) from rwc_people") == [(4,)]
    run(fresh, writes("", lambda t: t.delete().lt("id", 3).max_affected(2), [ANY, ANY], 200))


def test_names_that_need_quotes(fresh: World) -> None:
    odd = fresh.table('Odd "Table')
    (row,) = odd.insert({'a "column': 3, "select": "x", "x,y": "z"}).execute().data
    assert row == {'a "column': 3, "select": "x", "x,y": "z"}
    (row,) = odd.update({"select": "new"}).eq("x,y", "z").execute().data
    assert row["select"] == "new"


def test_what_was_applied_is_told(fresh: World) -> None:
    fresh.table("people").upsert([{"id": 1, "name": "A"}], count=EXACT, default_to_null=False).execute()
    applied = fresh.answers[-1].headers["preference-applied"].split(", ")
    wanted = ["count=exact", "missing=default", "resolution=merge-duplicates", "return=representation"]
    assert sorted(applied) == wanted


def test_nothing_is_told_of_a_minimal_answer(fresh: World) -> None:
    fresh.table("people").update({"age": 2}, returning=MINIMAL).eq("id", 1).execute()
    answer = fresh.answers[-1]
    assert answer.content == b""
    assert "content-type" not in answer.headers


def test_a_uuid_as_key(fresh: World) -> None:
    owner = uuid.uuid4()
    (row,) = fresh.table("notes").insert({"id": 1, "owner_id": owner, "body": "b"}).execute().data
    assert row == {"id": 1, "owner_id": str(owner), "body": "b"}
    found = fresh.table("notes").select("id").eq("owner_id", owner).execute()
    assert found.data == [{"id": 1}]


@pytest.mark.parametrize("many", [1, 1500])
def test_lists_of_any_length(fresh: World, many: int) -> None:
    rows = [{"id": n, "line": f"line {n}"} for n in range(many)]
    made = fresh.table("log").insert(rows, count=EXACT).execute()
    # max_rows cuts reads off, never what was written.
    assert (made.count, len(made.data)) == (many, many)
