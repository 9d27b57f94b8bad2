"""The REST API while its database, its connections or its own switches misbehave."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.project import find_project
from reactive_worker.local.rest.errors import ApiError, DatabaseError
from reactive_worker.local.rest.session import Command, SessionPool
from reactive_worker.testing.database import Database
from tests.integration.local.conftest import Api

REST_SESSIONS = """
select count(*) from pg_stat_activity
where application_name = 'reactive-worker REST' and datname = current_database()
"""
END_SESSIONS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where usename = 'authenticator' and datname = current_database()
"""


def test_sessions_that_were_ended_are_replaced(api: Api, pg_cluster: object) -> None:
    assert api.rpc("add", a=1).status_code == 200
    with psycopg.connect(pg_cluster.admin_dsn(api.connection.info.dbname), autocommit=True) as admin:  # type: ignore[attr-defined]
        assert admin.execute(END_SESSIONS).fetchone() != (0,)
        deadline = time.monotonic() + 10
        # Signalled is not yet gone; the listener may be back already.
        while admin.execute(REST_SESSIONS).fetchone() != (0,):
            assert time.monotonic() < deadline
    assert api.rpc("add", a=1).json() == 11
    # The listener comes back too: it is asked to forget, and does.
    api.connection.execute("create function later() returns int language sql as 'select 1'")
    assert api.rpc("later").json() == 1
    api.connection.execute("drop function later")


def test_a_session_that_ends_under_a_request_is_a_503(api: Api, pg_cluster: object) -> None:
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(pg_cluster.admin_dsn(api.connection.info.dbname), autocommit=True) as admin,  # type: ignore[attr-defined]
    ):
        request = threads.submit(api.rpc, "sleep", seconds=7)
        deadline = time.monotonic() + 10
        sleeping = (
            "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        )
        while admin.execute(sleeping).fetchone() is None:
            assert time.monotonic() < deadline
        admin.execute(END_SESSIONS)
        answer = request.result()
    assert answer.status_code == 503
    assert answer.json()["code"] in ("57P01", "PGRST001")
    assert api.rpc("add", a=1).status_code == 200


def test_many_requests_at_once_share_the_sessions(api: Api) -> None:
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda n: api.rpc("add", a=n).json(), range(400)))
    assert answers == [n + 10 for n in range(400)]
    assert api.rows(REST_SESSIONS)[0][0] <= 10


def test_requests_of_different_roles_never_mix(api: Api) -> None:
    keys = api.gateway.keys
    wanted = [keys.anon_key, keys.service_role_key, keys.mint_user("8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10")]
    roles = ["anon", "service_role", "authenticated"]

    def ask(n: int) -> str:
        headers = {"Authorization": f"Bearer {wanted[n % 3]}"}
        return api.request("GET", "/rpc/who", headers=headers).json()["role"]

    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(ask, range(300))) == [roles[n % 3] for n in range(300)]


def test_a_client_that_gives_up_costs_nothing(api: Api) -> None:
    for _ in range(12):
        with pytest.raises(httpx.TimeoutException):
            api.post("/rpc/sleep", {"seconds": 1}, timeout=0.05)
    assert api.rpc("add", a=1, b=1).json() == 2


def test_every_request_can_be_refused(api: Api) -> None:
    api.gateway.faults.rest_status = 503
    answer = api.get("/people")
    assert answer.status_code == 503
    assert set(answer.json()) == {"code", "message", "details", "hint"}
    api.gateway.faults.rest_status = None
    assert api.get("/people").status_code == 200


def test_requests_can_be_swallowed(api: Api) -> None:
    api.gateway.faults.swallow = True
    with pytest.raises(httpx.ReadTimeout):
        api.get("/people", timeout=0.2)
    api.gateway.faults.swallow = False
    assert api.get("/people").status_code == 200


def test_switches_are_set_over_http_with_the_service_key_only(api: Api) -> None:
    url, keys = f"{api.gateway.api_url}/_local/faults", api.gateway.keys
    assert httpx.post(url, json={"deaf": True}).status_code == 401
    assert httpx.post(url, json={"deaf": True}, headers={"apikey": keys.anon_key}).status_code == 403
    assert not api.gateway.faults.deaf
    headers = {"apikey": keys.secret_key}
    assert httpx.post(url, json={"deaf": True, "clock_offset": 5}, headers=headers).json()["deaf"] is True
    assert api.gateway.faults.deaf
    assert httpx.get(url, headers=headers).json()["clock_offset"] == 5
    for wrong in ({"no_such": 1}, {"deaf": "yes"}, [1]):
        answer = httpx.post(url, json=wrong, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["message"]
    assert httpx.post(url, json={"reset": True}, headers=headers).json()["deaf"] is False


async def test_no_database_is_a_503() -> None:
    pool = SessionPool("postgresql://authenticator:postgres@127.0.0.1:1/postgres")
    with pytest.raises(ApiError) as caught:
        async with pool.session():
            pass
    assert (caught.value.status, caught.value.code) == (503, "PGRST000")


async def test_no_free_session_is_a_504(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.rest.session.ACQUIRE_TIMEOUT", 0.05)
    pool = SessionPool(database.authenticator_dsn, size=1)  # type: ignore[attr-defined]
    async with pool.session():
        with pytest.raises(ApiError) as caught:
            async with pool.session():
                pass
    assert (caught.value.status, caught.value.code) == (504, "PGRST003")
    pool.close()


async def test_prepared_statements_stay_bounded(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.rest.session.PREPARED_LIMIT", 5)
    pool = SessionPool(database.authenticator_dsn)  # type: ignore[attr-defined]
    count = Command("select count(*) from pg_prepared_statements")
    async with pool.session() as session:
        for n in range(20):
            assert (await session.run([Command(f"select $1::int + {n}", ("1",))]))[0][0] == b"%d" % (n + 1)
            with pytest.raises(DatabaseError):
                await session.run([Command(f"select 1 / ($1::int - {n})", (str(n),))])
        assert int((await session.run([count]))[0][0] or 0) <= 6
        # A failed statement that is known runs again, and so does one that was never prepared.
        for _ in range(3):
            with pytest.raises(DatabaseError):
                await session.run([Command("select * from no_such_table")])
            assert (await session.run([count]))[0]
    pool.close()


async def test_a_cancelled_request_does_not_leave_its_answer_to_the_next(database: object) -> None:
    pool = SessionPool(database.authenticator_dsn, size=1)  # type: ignore[attr-defined]

    async def ask(sql: str) -> bytes | None:
        async with pool.session() as session:
            return (await session.run([Command(sql)]))[0][0]

    assert await ask("select 1") == b"1"
    slow = asyncio.create_task(ask("select 2 from pg_sleep(5)"))
    with psycopg.connect(database.dsn, autocommit=True) as watcher:  # type: ignore[attr-defined]
        while (
            watcher.execute("select 1 from pg_stat_activity where wait_event = 'PgSleep'").fetchone() is None
        ):
            await asyncio.sleep(0.005)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert await ask("select 3") == b"3"
    pool.close()


async def test_large_statements_and_answers_pass_together(database: object) -> None:
    pool = SessionPool(database.authenticator_dsn)  # type: ignore[attr-defined]
    text = "x" * 20_000_000
    async with pool.session() as session:
        rows = await session.run([Command("select $1::text", (text,)), Command("select $1::text", (text,))])
    assert rows[0][0] == text.encode()
    pool.close()


def test_no_thread_or_session_stays_behind(database: Database) -> None:
    before = set(threading.enumerate())
    gateway = Gateway(project=find_project())
    gateway.start(
        db_url=database.dsn,
        authenticator_dsn=database.authenticator_dsn,
        admin_dsn=database.admin_dsn,
    )
    try:
        headers = {"apikey": gateway.secret_key}
        assert httpx.get(f"{gateway.api_url}/rest/v1/todolist", headers=headers).json() == []
        assert set(threading.enumerate()) > before
    finally:
        gateway.stop()
    assert set(threading.enumerate()) <= before
    with psycopg.connect(database.admin_dsn) as admin:
        others = admin.execute(
            "select usename, application_name, query from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchall()
    assert others == []


def test_a_surprise_is_logged_and_answered_like_any_error(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("reactive_worker.local.rest.plan.Planner.plan", broken)
    answer = api.get("/people")
    assert (answer.status_code, answer.json()["code"]) == (500, "PGRSTX00")
    assert "surprise" in caplog.text
