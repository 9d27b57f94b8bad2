"""Tables embedded in others: relationships, hints, joins, filters, spreads, and after writes and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.local.conftest import Api

SHOW = "return=representation"
NO_WAY = "Could not find a relationship between"


@pytest.fixture(scope="module")
def work(module_api: Api) -> Api:
    """The API with tables that belong to each other."""
    module_api.connection.execute(Path(__file__).with_name("embeds.sql").read_bytes())
    return module_api


CASES: dict[str, tuple[str, Any]] = {
    "many to one": (
        "/projects?select=name,clients(name)&order=id",
        [
            {"name": "Alpha", "clients": {"name": "Acme"}},
            {"name": "Beta", "clients": {"name": "Acme"}},
            {"name": "Gamma", "clients": {"name": "Zeta"}},
            {"name": "Loose", "clients": None},
        ],
    ),
    "one to many": (
        "/clients?select=id,projects(name)&order=id",
        [
            {"id": 1, "projects": [{"name": "Alpha"}, {"name": "Beta"}]},
            {"id": 2, "projects": [{"name": "Gamma"}]},
            {"id": 3, "projects": []},
        ],
    ),
    "one to one, from both sides": (
        "/profiles?select=bio,people_of_work(name,profiles(bio))&person_id=eq.1",
        [{"bio": "boss", "people_of_work": {"name": "Ann", "profiles": {"bio": "boss"}}}],
    ),
    "many to many": (
        "/tasks?select=id,people_of_work(name)&id=lt.4&people_of_work.order=id&order=id",
        [
            {"id": 1, "people_of_work": [{"name": "Ann"}]},
            {"id": 2, "people_of_work": [{"name": "Ann"}, {"name": "Ben"}]},
            {"id": 3, "people_of_work": [{"name": "Cat"}]},
        ],
    ),
    "many to many, by the table between": (
        "/people_of_work?select=name,tasks!assignments(title)&id=eq.2",
        [{"name": "Ben", "tasks": [{"title": "build"}]}],
    ),
    "several levels": (
        "/clients?select=name,projects(name,tasks(title,assignments(role,people_of_work(name))))&id=eq.2",
        [{"name": "Zeta", "projects": [{"name": "Gamma", "tasks": [{"title": "ship", "assignments": []}]}]}],
    ),
    "an alias": (
        "/projects?select=id,customer:clients(who:name)&id=eq.1",
        [{"id": 1, "customer": {"who": "Acme"}}],
    ),
    "the same table twice": (
        "/projects?select=id,a:clients(id),b:clients(name)&id=eq.1",
        [{"id": 1, "a": {"id": 1}, "b": {"name": "Acme"}}],
    ),
    "all columns of both": (
        "/projects?select=*,clients(*)&id=eq.3",
        [{"id": 3, "name": "Gamma", "client_id": 2, "budget": 60, "clients": {"id": 2, "name": "Zeta"}}],
    ),
    "only what is embedded": ("/projects?select=clients(name)&id=eq.1", [{"clients": {"name": "Acme"}}]),
    "a hint by constraint": (
        "/trips?select=id,start:places!trips_from(city),end:places!trips_to(city)&id=eq.1",
        [{"id": 1, "start": {"city": "Rome"}, "end": {"city": "Oslo"}}],
    ),
    "a hint by column": (
        "/trips?select=start:places!start_id(city)&id=eq.2",
        [{"start": {"city": "Oslo"}}],
    ),
    "a hint, to many": (
        "/places?select=city,leaving:trips!start_id(id)&id=eq.1",
        [{"city": "Rome", "leaving": [{"id": 1}]}],
    ),
    "a constraint as the target": (
        "/trips?select=trips_to(city)&id=eq.1",
        [{"trips_to": {"city": "Oslo"}}],
    ),
    "a column as the target": ("/trips?select=end_id(city)&id=eq.1", [{"end_id": {"city": "Oslo"}}]),
    "a table that refers to itself": (
        "/people_of_work?select=name,boss:boss_id(name),reports:people_of_work(name)&order=id",
        [
            {"name": "Ann", "boss": None, "reports": [{"name": "Ben"}, {"name": "Cat"}]},
            {"name": "Ben", "boss": {"name": "Ann"}, "reports": []},
            {"name": "Cat", "boss": {"name": "Ann"}, "reports": []},
        ],
    ),
    "itself with a hint": (
        "/people_of_work?select=name,reports:people_of_work!boss_id(name)&id=eq.1",
        [{"name": "Ann", "reports": [{"name": "Ben"}, {"name": "Cat"}]}],
    ),
    "a key of two columns": (
        "/towns?select=name,regions(name)&order=id",
        [{"name": "Rome", "regions": {"name": "Lazio"}}, {"name": "Atlantis", "regions": None}],
    ),
    "from a view": (
        "/big_projects?select=number,clients(name),tasks(title)&order=number&tasks.order=id",
        [
            {"number": 1, "clients": {"name": "Acme"}, "tasks": [{"title": "plan"}, {"title": "build"}]},
            {"number": 3, "clients": {"name": "Zeta"}, "tasks": [{"title": "ship"}]},
        ],
    ),
    "a view": (
        "/clients?select=id,big_projects(number)&order=id",
        [
            {"id": 1, "big_projects": [{"number": 1}]},
            {"id": 2, "big_projects": [{"number": 3}]},
            {"id": 3, "big_projects": []},
        ],
    ),
    "a view of a view": (
        "/big_again?select=number,clients(name)&number=eq.3",
        [{"number": 3, "clients": {"name": "Zeta"}}],
    ),
    "a function as a relationship": (
        "/projects?select=id,long_tasks(title),latest_task(title)&id=eq.1",
        [{"id": 1, "long_tasks": [{"title": "build"}], "latest_task": {"title": "build"}}],
    ),
    "a column that is a function": ("/clients?select=shouted&id=eq.1", [{"shouted": "ACME"}]),
    "an inner join": (
        "/clients?select=id,projects!inner(id)&order=id&projects.order=id",
        [{"id": 1, "projects": [{"id": 1}, {"id": 2}]}, {"id": 2, "projects": [{"id": 3}]}],
    ),
    "an inner join with a filter": (
        "/clients?select=id,projects!inner(id)&projects.budget=gt.50&order=id",
        [{"id": 1, "projects": [{"id": 1}]}, {"id": 2, "projects": [{"id": 3}]}],
    ),
    "an inner join to one": (
        "/projects?select=id,clients!inner()&order=id",
        [{"id": 1}, {"id": 2}, {"id": 3}],
    ),
    "an inner join many to many": (
        "/tasks?select=id,people_of_work!inner(id)&people_of_work.name=eq.Ben",
        [{"id": 2, "people_of_work": [{"id": 2}]}],
    ),
    "a filter on what is embedded": (
        "/clients?select=id,projects(id)&projects.budget=lt.50&order=id",
        [{"id": 1, "projects": [{"id": 2}]}, {"id": 2, "projects": []}, {"id": 3, "projects": []}],
    ),
    "a filter by alias": (
        "/clients?select=id,p:projects(id)&p.id=eq.3&id=eq.2",
        [{"id": 2, "p": [{"id": 3}]}],
    ),
    "conditions joined by or": (
        "/clients?select=id,projects(id)&projects.or=(id.eq.1,budget.eq.60)&order=id",
        [{"id": 1, "projects": [{"id": 1}]}, {"id": 2, "projects": [{"id": 3}]}, {"id": 3, "projects": []}],
    ),
    "a filter two levels down": (
        "/clients?select=id,projects(id,tasks(id))&projects.tasks.hours=gt.5&id=eq.1&projects.order=id",
        [{"id": 1, "projects": [{"id": 1, "tasks": [{"id": 2}]}, {"id": 2, "tasks": []}]}],
    ),
    "order and limit of what is embedded": (
        "/clients?select=id,projects(id)&projects.order=id.desc&projects.limit=1&order=id",
        [{"id": 1, "projects": [{"id": 2}]}, {"id": 2, "projects": [{"id": 3}]}, {"id": 3, "projects": []}],
    ),
    "offset of what is embedded": (
        "/clients?select=id,projects(id)&projects.order=id&projects.offset=1&id=eq.1",
        [{"id": 1, "projects": [{"id": 2}]}],
    ),
    "without what is embedded": (
        "/clients?select=id,projects()&projects=is.null",
        [{"id": 3}],
    ),
    "with what is embedded": (
        "/clients?select=id,projects()&projects=not.is.null&order=id",
        [{"id": 1}, {"id": 2}],
    ),
    "with or without": (
        "/clients?select=id,projects()&or=(projects.is.null,name.eq.Acme)&order=id",
        [{"id": 1}, {"id": 3}],
    ),
    "to one, or not": ("/projects?select=id,clients()&clients=is.null", [{"id": 4}]),
    "sorted by what is embedded": (
        "/projects?select=id,clients(name)&order=clients(name).desc.nullslast,id",
        [
            {"id": 3, "clients": {"name": "Zeta"}},
            {"id": 1, "clients": {"name": "Acme"}},
            {"id": 2, "clients": {"name": "Acme"}},
            {"id": 4, "clients": None},
        ],
    ),
    "spread to one": (
        "/projects?select=name,...clients(customer:name)&order=id&id=lt.3",
        [{"name": "Alpha", "customer": "Acme"}, {"name": "Beta", "customer": "Acme"}],
    ),
    "spread with all columns": (
        "/tasks?select=title,...projects(budget,...clients(*))&id=eq.4",
        [{"title": "ship", "budget": 60, "id": 2, "name": "Zeta"}],
    ),
    "spread with a table inside": (
        "/tasks?select=title,...projects(clients(name))&id=eq.4",
        [{"title": "ship", "clients": {"name": "Zeta"}}],
    ),
    "spread to many": (
        "/clients?select=id,...projects(names:name,budget)&projects.order=id.desc&order=id",
        [
            {"id": 1, "names": ["Beta", "Alpha"], "budget": [10, 100]},
            {"id": 2, "names": ["Gamma"], "budget": [60]},
            {"id": 3, "names": [], "budget": []},
        ],
    ),
    "spread to many with all columns": (
        "/clients?select=name,...profiled:projects(*)&id=eq.2",
        None,
    ),
    "json inside what is embedded": (
        "/clients?select=projects(n:budget::text)&id=eq.2",
        [{"projects": [{"n": "60"}]}],
    ),
    "full text": ("/articles?select=id&body=fts(english).cat&order=id", [{"id": 1}, {"id": 2}]),
    "full text of a tsvector": ("/articles?select=id&search=fts.dog", [{"id": 2}]),
    "full text in plain words": ("/articles?select=id&search=plfts(english).dog barks", [{"id": 2}]),
    "full text as a phrase": ("/articles?select=id&search=phfts(english).cat sat", [{"id": 1}]),
    "full text as on the web": ("/articles?select=id&search=wfts(english).cat -dog", [{"id": 1}]),
    "not full text": ("/articles?select=id&search=not.fts.cat", [{"id": 3}]),
    "full text inside or": (
        "/articles?select=id&or=(search.fts.dog,body.plfts(simple).rats)&order=id",
        [{"id": 2}, {"id": 3}],
    ),
    "full text of what is embedded": (
        "/clients?select=id,projects(id)&projects.name=fts.gamma&id=eq.2",
        [{"id": 2, "projects": [{"id": 3}]}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reads(work: Api, name: str) -> None:
    path, expected = CASES[name]
    answer = work.get(path)
    if expected is None:
        assert (answer.status_code, answer.json()["code"]) == (400, "PGRST100")
    else:
        assert answer.status_code == 200, answer.text
        assert answer.json() == expected


def test_spread_to_many_with_a_star(work: Api) -> None:
    answer = work.get("/clients?select=who:name,...projects(*)&id=eq.2")
    assert answer.json() == [{"who": "Zeta", "id": [3], "name": ["Gamma"], "client_id": [2], "budget": [60]}]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (
            "/projects?select=id,articles(id)",
            400,
            {
                "code": "PGRST200",
                "message": f"{NO_WAY} 'projects' and 'articles' in the schema cache",
                "details": "Searched for a foreign key relationship between 'projects' and 'articles' in the "
                "schema 'public', but no matches were found.",
                "hint": None,
            },
        ),
        (
            "/projects?select=id,client!nothing(id)",
            400,
            {
                "code": "PGRST200",
                "message": f"{NO_WAY} 'projects' and 'client' in the schema cache",
                "details": "Searched for a foreign key relationship between 'projects' and 'client' "
                "using the hint 'nothing' in the schema 'public', but no matches were found.",
                "hint": "Perhaps you meant 'clients' instead of 'client'.",
            },
        ),
        (
            "/trips?select=id,places(city)",
            300,
            {
                "code": "PGRST201",
                "message": "Could not embed because more than one relationship was found "
                "for 'trips' and 'places'",
                "details": [
                    {
                        "cardinality": "many-to-one",
                        "embedding": "trips with places",
                        "relationship": "trips_from using trips(start_id) and places(id)",
                    },
                    {
                        "cardinality": "many-to-one",
                        "embedding": "trips with places",
                        "relationship": "trips_to using trips(end_id) and places(id)",
                    },
                ],
                "hint": "Try changing 'places' to one of the following: 'places!trips_from', "
                "'places!trips_to'. Find the desired relationship in the 'details' key.",
            },
        ),
        (
            "/projects?select=id&clients.name=eq.Acme",
            400,
            {
                "code": "PGRST108",
                "message": "'clients' is not an embedded resource in this request",
                "details": None,
                "hint": "Verify that 'clients' is included in the 'select' query parameter.",
            },
        ),
        (
            "/clients?select=id,projects(id)&order=projects(id)",
            400,
            {
                "code": "PGRST118",
                "message": "A related order on 'projects' is not possible",
                "details": "'clients' and 'projects' do not form a many-to-one or one-to-one relationship",
                "hint": None,
            },
        ),
    ],
)
def test_what_is_refused(work: Api, path: str, status: int, body: dict[str, Any]) -> None:
    answer = work.get(path)
    assert (answer.status_code, answer.json()) == (status, body)


def test_tables_of_schemas_that_are_not_exposed_are_not_there(work: Api) -> None:
    assert work.get("/clients?select=id,notes(id)").json()["code"] == "PGRST200"


def test_rights_are_those_of_every_table(work: Api) -> None:
    anon = work.gateway.publishable_key
    assert work.get("/projects?select=id,clients(name)&id=eq.1", key=anon).status_code == 200
    answer = work.get("/projects?select=id,tasks(id)&id=eq.1", key=anon)
    assert (answer.status_code, answer.json()["message"]) == (401, "permission denied for table tasks")


@pytest.mark.parametrize(
    ("path", "content_range"),
    [
        ("/clients?select=id,projects(id)&limit=1", "0-0/3"),
        ("/clients?select=id,projects!inner(id)&limit=1", "0-0/2"),
        ("/clients?select=id,projects!inner(id,tasks!inner(id))&projects.tasks.hours=gt.5&limit=1", "0-0/1"),
        ("/clients?select=id,projects()&projects=is.null", "0-0/1"),
        ("/tasks?select=id,people_of_work!inner(id)&people_of_work.id=eq.1&limit=1", "0-0/2"),
    ],
)
def test_counts_know_of_joins(work: Api, path: str, content_range: str) -> None:
    assert work.get(path, "count=exact").headers["content-range"] == content_range


def test_max_rows_is_for_what_is_embedded_too(work: Api) -> None:
    work.connection.execute("insert into clients values (50, 'Many')")
    work.connection.execute("insert into projects select n, 'p', 50 from generate_series(1000, 2100) n")
    (client,) = work.get("/clients?select=projects(id)&id=eq.50").json()
    assert len(client["projects"]) == 1000
    work.connection.execute("delete from projects where id >= 1000; delete from clients where id = 50")


def test_a_write_shows_what_belongs_to_it(work: Api) -> None:
    made = work.post("/projects?select=name,clients(name)", {"id": 9, "name": "New", "client_id": 2}, SHOW)
    assert (made.status_code, made.json()) == (201, [{"name": "New", "clients": {"name": "Zeta"}}])
    changed = work.request(
        "PATCH",
        "/projects?id=eq.9&select=id,clients!inner(name),tasks(id)",
        json={"client_id": 1},
        headers={"Prefer": SHOW},
    )
    assert changed.json() == [{"id": 9, "clients": {"name": "Acme"}, "tasks": []}]
    path = "/projects?id=eq.9&select=name,...clients(customer:name)"
    gone = work.request("DELETE", path, headers={"Prefer": SHOW})
    assert gone.json() == [{"name": "New", "customer": "Acme"}]
    # Filters on what is embedded are not about the rows that are written.
    path = "/clients?id=eq.1&select=id,projects(id)&projects.id=eq.2"
    changed = work.request("PATCH", path, json={"name": "Acme"}, headers={"Prefer": SHOW})
    assert changed.json() == [{"id": 1, "projects": [{"id": 2}]}]


def test_rows_of_a_function_have_what_their_table_has(work: Api) -> None:
    answer = work.post("/rpc/all_projects?select=name,clients(name)&id=eq.3", {})
    assert answer.json() == [{"name": "Gamma", "clients": {"name": "Zeta"}}]
    answer = work.get("/rpc/all_projects?select=id,tasks!inner(title)&tasks.title=eq.test")
    assert answer.json() == [{"id": 2, "tasks": [{"title": "test"}]}]
    assert work.post("/rpc/first_project?select=name,clients(name)", {}).json() == {
        "name": "Alpha",
        "clients": {"name": "Acme"},
    }
    counted = work.post("/rpc/all_projects?select=id,clients!inner(id)&limit=1", {}, "count=exact")
    assert counted.headers["content-range"] == "0-0/3"


def test_what_is_new_can_be_embedded_at_once(work: Api) -> None:
    assert work.get("/clients?select=id,offices(city)&id=eq.1").json()["code"] == "PGRST200"
    work.connection.execute(
        "create table offices (id int primary key, client_id int references clients, city text);"
        "insert into offices values (1, 1, 'Bonn'); grant select on offices to service_role"
    )
    answer = work.get("/clients?select=id,offices(city)&id=eq.1")
    assert answer.json() == [{"id": 1, "offices": [{"city": "Bonn"}]}]
    work.connection.execute("drop table offices")


def test_csv(work: Api) -> None:
    headers = {"Accept": "text/csv"}
    answer = work.request("GET", "/projects?select=id,name,budget&order=id&id=gt.2", headers=headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == "id,name,budget\n3,Gamma,60\n4,Loose,"
    assert work.request("GET", "/projects?id=eq.99", headers=headers).text == "\n"
    answer = work.request("POST", "/rpc/all_projects?select=id&id=eq.1", json={}, headers=headers)
    assert answer.text == "id\n1"
