"""What a project sets at the role authenticator: the API server follows, as a hosted one does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local.conftest import Api

Set = Callable[[str, str], None]


@pytest.fixture(scope="module")
def work(module_api: Api) -> Api:
    module_api.connection.execute(Path(__file__).with_name("embeds.sql").read_bytes())
    return module_api


@pytest.fixture
def setting(work: Api) -> Generator[Set]:
    """Sets a parameter for this test's database, as its owner, who is no superuser."""
    name = work.connection.info.dbname

    def change(parameter: str, value: str) -> None:
        work.connection.execute(
            f"alter role authenticator in database {name} set {parameter} = '{value}'".encode()
        )
        work.connection.execute("notify pgrst, 'reload config'")

    yield change
    work.connection.execute(f"alter role authenticator in database {name} reset all".encode())
    work.connection.execute("notify pgrst, 'reload config'")


def eventually(work: Api, path: str, status: int) -> Any:
    """The answer once the server has heard of the change."""
    for _ in range(2000):
        answer = work.get(path)
        if answer.status_code == status:
            return answer.json()
    raise AssertionError(answer.text)


def test_aggregates_are_off_until_they_are_switched_on(work: Api) -> None:
    for select in ("count()", "budget.sum()", "clients(count())"):
        answer = work.get(f"/projects?select={select}")
        assert (answer.status_code, answer.json()) == (
            400,
            {
                "code": "PGRST123",
                "message": "Use of aggregate functions is not allowed",
                "details": None,
                "hint": None,
            },
        )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/projects?select=count()", [{"count": 4}]),
        (
            "/projects?select=n:count(),budget.sum(),most:budget.max(),least:budget.min()&id=lt.4",
            [{"n": 3, "sum": 170, "most": 100, "least": 10}],
        ),
        ("/projects?select=budget.avg()::int&id=lt.3", [{"avg": 55}]),
        ("/projects?select=budget::text.max()", [{"max": "60"}]),
        (
            "/projects?select=client_id,budget.sum()&order=client_id",
            [{"client_id": 1, "sum": 110}, {"client_id": 2, "sum": 60}, {"client_id": None, "sum": None}],
        ),
        (
            "/projects?select=customer:client_id,budget.sum()&order=client_id&client_id=not.is.null",
            [{"customer": 1, "sum": 110}, {"customer": 2, "sum": 60}],
        ),
        (
            "/clients?select=name,projects(count(),budget.sum())&order=id&id=lt.3",
            [
                {"name": "Acme", "projects": [{"count": 2, "sum": 110}]},
                {"name": "Zeta", "projects": [{"count": 1, "sum": 60}]},
            ],
        ),
        (
            "/projects?select=clients(name),budget.sum()&client_id=eq.1",
            [{"clients": {"name": "Acme"}, "sum": 110}],
        ),
        (
            "/projects?select=...clients(name),budget.sum()&client_id=eq.1",
            [{"name": "Acme", "sum": 110}],
        ),
        (
            "/tasks?select=hours.sum(),...projects(...clients(name))&id=lt.4",
            [{"sum": 16, "name": "Acme"}],
        ),
        # Of a table that is spread the aggregates are those of the table it is spread into.
        ("/tasks?select=...projects(total:budget.sum())&id=lt.4", [{"total": 210}]),
        ("/tasks?select=...projects(count())&id=lt.4", [{"count": 3}]),
    ],
)
def test_aggregates(work: Api, setting: Set, path: str, expected: Any) -> None:
    setting("pgrst.db_aggregates_enabled", "true")
    eventually(work, "/projects?select=count()", 200)
    answer = work.get(path)
    assert answer.json() == expected, answer.text


def test_aggregates_of_spreads_to_many_are_refused_by_name(work: Api, setting: Set) -> None:
    setting("pgrst.db_aggregates_enabled", "true")
    eventually(work, "/projects?select=count()", 200)
    answer = work.get("/clients?select=...projects(budget.sum())")
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST127")
    assert "one-to-many and many-to-many spreads" in answer.json()["details"]


def test_max_rows(work: Api, setting: Set) -> None:
    setting("pgrst.db_max_rows", "2")
    for _ in range(2000):
        if len(found := work.get("/projects?select=id").json()) == 2:
            break
    assert len(found) == 2


def test_schemas(work: Api, setting: Set) -> None:
    work.connection.execute(
        "grant usage on schema private to service_role; grant select on private.notes to service_role"
    )
    headers = {"Accept-Profile": "private"}
    assert work.request("GET", "/notes", headers=headers).status_code == 406
    setting("pgrst.db_schemas", "public, private")
    for _ in range(2000):
        answer = work.request("GET", "/notes", headers=headers)
        if answer.status_code == 200:
            break
    assert (answer.json(), answer.headers["content-profile"]) == ([], "private")


def test_a_function_before_every_request(work: Api, setting: Set) -> None:
    work.connection.execute(
        "create or replace function check_request() returns void language plpgsql as $$ begin"
        " if current_setting('request.headers', true)::json ->> 'x-blocked' = 'yes' then"
        " raise sqlstate 'PT403' using message = 'blocked'; end if; end $$;"
    )
    setting("pgrst.db_pre_request", "public.check_request")
    for _ in range(2000):
        answer = work.request("GET", "/clients", headers={"X-Blocked": "yes"})
        if answer.status_code == 403:
            break
    assert answer.json()["message"] == "blocked"
    assert work.get("/clients?select=id&limit=1").json() == [{"id": 1}]


def test_a_setting_that_is_not_known_is_told(
    work: Api, setting: Set, caplog: pytest.LogCaptureFixture
) -> None:
    setting("pgrst.db_plan_enabled", "true")
    for _ in range(2000):
        assert work.get("/clients?limit=1").status_code == 200
        if "pgrst.db_plan_enabled" in caplog.text:
            break
    assert "does not know the setting pgrst.db_plan_enabled" in caplog.text
