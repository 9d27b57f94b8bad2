"""Related tables in one request, with supabase-py."""

from __future__ import annotations

from tests.conformance.cases import ANY, Case, parametrize, refused, run
from tests.conformance.conftest import World

ROWS = [
    {"id": 1, "person_id": 1, "line": "one"},
    {"id": 2, "person_id": 1, "line": "two"},
    {"id": 3, "person_id": 2, "line": "three cats"},
    {"id": 4, "person_id": None, "line": "nobody's cat"},
]


def named(world: World, select: str) -> str:
    """A select in which ``~`` stands for the prefix of this run's tables."""
    return select.replace("~", world.target.prefix)


def log(world: World, select: str):
    return world.table("log").select(named(world, select)).order("id")


def people(world: World, select: str):
    return world.table("people").select(named(world, select)).order("id").lt("id", 4)


CASES = [
    Case(
        "to one",
        lambda w: log(w, "id, who:~people(name)").gt("id", 1),
        [
            {"id": 2, "who": {"name": "Ada"}},
            {"id": 3, "who": {"name": "Bob"}},
            {"id": 4, "who": None},
        ],
    ),
    Case(
        "to many",
        lambda w: people(w, "name, lines:~log(line)").lt("id", 3),
        [
            {"name": "Ada", "lines": [{"line": "one"}, {"line": "two"}]},
            {"name": "Bob", "lines": [{"line": "three cats"}]},
        ],
    ),
    Case("inner", lambda w: log(w, "id, ~people!inner()"), [{"id": 1}, {"id": 2}, {"id": 3}]),
    Case(
        "inner with a filter",
        lambda w: log(w, "id, who:~people!inner(name)").eq("who.name", "Bob"),
        [{"id": 3, "who": {"name": "Bob"}}],
    ),
    Case(
        "a hint",
        lambda w: log(w, "who:~people!person_id(id)").eq("id", 3),
        [{"who": {"id": 2}}],
    ),
    Case(
        "order and limit of what is embedded",
        lambda w: (
            people(w, "lines:~log(id)")
            .order("id", desc=True, foreign_table="lines")
            .limit(1, foreign_table="lines")
        ),
        [{"lines": [{"id": 2}]}, {"lines": [{"id": 3}]}, {"lines": []}],
    ),
    Case("spread", lambda w: log(w, "id, ...~people(name)").eq("id", 1), [{"id": 1, "name": "Ada"}]),
    Case(
        "or in what is embedded",
        lambda w: people(w, "lines:~log(id)").or_("id.eq.1,line.like.three*", reference_table="lines"),
        [{"lines": [{"id": 1}]}, {"lines": [{"id": 3}]}, {"lines": []}],
    ),
    Case(
        "counted through an inner join",
        lambda w: w.table("people").select(named(w, "id, ~log!inner()"), count="exact").limit(1),
        [{"id": 1}],
        206,
        range="0-0/2",
        count=2,
    ),
    Case(
        "full text search",
        lambda w: log(w, "id").text_search("line", "cat", options={"config": "english"}),
        [{"id": 3}, {"id": 4}],
    ),
    Case(
        "no relationship",
        lambda w: log(w, "id, ~notes(id)"),
        **refused(400, "PGRST200"),
    ),
    Case(
        "not embedded",
        lambda w: log(w, "id").eq("who.name", "x"),
        **refused(400, "PGRST108", "'who' is not an embedded resource in this request", None),
    ),
    Case("aggregates", lambda w: log(w, "id.sum()"), **refused(400, "PGRST123", ANY, None, None)),
]


@parametrize(*CASES)
def test_embeds(fresh: World, case: Case) -> None:
    fresh.table("log").insert(ROWS).execute()
    run(fresh, case)


def test_after_a_write(fresh: World) -> None:
    fresh.table("log").insert(ROWS).execute()
    select = named(fresh, "id, who:~people(name)")
    changed = fresh.service.postgrest.session.patch(
        f"{fresh.target.url}/rest/v1/{fresh.target.name('log')}",
        params={"id": "eq.4", "select": select},
        headers={
            "apikey": fresh.target.service_key,
            "Authorization": f"Bearer {fresh.target.service_key}",
            "Prefer": "return=representation",
        },
        json={"person_id": 1},
    )
    assert changed.json() == [{"id": 4, "who": {"name": "Ada"}}]


def test_csv(world: World) -> None:
    answer = world.table("people").select("id", "name").eq("id", 1).csv().execute()
    assert answer.data == "id,name\n1,Ada"
