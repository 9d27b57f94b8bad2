"""The opt-in SQL files: each does what it says, may be run twice, and is never applied by itself."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from reactive_worker.access.credentials import Credentials, TokenFile
from reactive_worker.access.tokens import mint_token
from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import PermissionDeniedError, QuotaExceededError
from reactive_worker.local.project import find_project
from reactive_worker.store.connection import Connection
from reactive_worker.store.objects import FileMissingError, ObjectStore
from tests.integration.security.people import headers

OPTIONAL = find_project().folder / "optional"


def run(supabase: Any, name: str) -> None:
    """As its owner would in the SQL editor; twice, for it may be run again."""
    with psycopg.connect(supabase.db_url, autocommit=True) as owner:
        for _ in range(2):
            owner.execute((OPTIONAL / name).read_bytes())
        owner.execute("notify pgrst, 'reload schema'")


class Caller:
    """One caller over HTTP."""

    def __init__(self, supabase: Any, sent: dict[str, str]) -> None:
        self._url, self._sent = f"{supabase.api_url}/rest/v1", sent

    def rpc(self, name: str, **arguments: Any) -> httpx.Response:
        return httpx.post(f"{self._url}/rpc/{name}", json=arguments, headers=self._sent)

    def submit(self) -> str:
        answer = self.rpc("submit_todos", p_rows=[{"agent_type": "test", "prompt": "x"}])
        assert answer.status_code == 200, answer.text
        return answer.json()[0]["id"]

    def sees(self, *ids: str) -> list[bool]:
        found = httpx.get(f"{self._url}/todolist?select=id", headers=self._sent)
        rows = {row["id"] for row in found.json()} if found.status_code == 200 else set()
        return [id in rows for id in ids]


def test_they_are_no_migrations() -> None:
    assert {path.name for path in OPTIONAL.glob("*.sql")} == {
        "anon_demo.sql",
        "anon_demo_undo.sql",
        "quota.sql",
        "start_tasks.sql",
        "tenants.sql",
        "worker_files.sql",
    }
    assert not {path.name for path in OPTIONAL.glob("*")} & {
        migration.path.name for migration in find_project().migrations()
    }


def test_a_demo_lets_anybody_have_what_nobody_owns_and_is_taken_back(local_supabase: Any) -> None:
    everybody = {role: Caller(local_supabase, sent) for role, sent in headers(local_supabase).items()}
    anon, ann, service = everybody["anon"], everybody["owner"], everybody["service"]
    private = ann.submit()
    run(local_supabase, "anon_demo.sql")
    mine = anon.submit()
    assert anon.sees(mine, private) == [True, False]
    assert anon.rpc("cancel_todo", p_id=mine).json()["agent_status"] == "cancelled"
    assert anon.rpc("retry_todo", p_id=mine).json()["agent_status"] == "pending"
    assert anon.rpc("cancel_todo", p_id=private).status_code == 404
    for name, arguments in (
        ("claim_todos", {"p_worker_id": str(uuid.uuid4()), "p_ids": [mine], "p_want": 1}),
        ("todo_stats", {}),
    ):
        assert anon.rpc(name, **arguments).status_code == 401
    forged = {"agent_type": "test", "prompt": "x", "agent_status": "completed"}
    url = f"{local_supabase.api_url}/rest/v1/todolist"
    sent = headers(local_supabase)["anon"]
    assert httpx.post(url, json=forged, headers=sent).status_code == 401
    assert httpx.patch(f"{url}?id=eq.{mine}", json={"prompt": "y"}, headers=sent).status_code == 401
    # Users see no more than before.
    assert ann.sees(mine, private) == [False, True]

    run(local_supabase, "anon_demo_undo.sql")
    assert anon.sees(mine) == [False]
    assert anon.rpc("submit_todos", p_rows=[]).status_code == 401
    assert anon.rpc("cancel_todo", p_id=mine).status_code == 401
    assert service.sees(mine, private) == [True, True]
    with psycopg.connect(local_supabase.db_url) as owner:
        left = owner.execute(
            "select count(*) from pg_policy where polname like 'demo:%' union all"
            " select count(*) from information_schema.role_table_grants where grantee = 'anon'"
            " and table_schema = 'public' union all select count(*) from"
            " information_schema.role_routine_grants where grantee = 'anon'"
            " and routine_schema in ('public', 'reactive_worker_private')"
            " and routine_name <> 'reactive_worker_schema_version'"
        ).fetchall()
    assert left == [(0,), (0,), (0,)]


async def test_workers_get_one_bucket(local_supabase: Any, tmp_path: Path) -> None:
    run(local_supabase, "worker_files.sql")
    token = tmp_path / "token"
    token.write_text(mint_token(local_supabase.jwt_secret, expires_in=60))
    everything = await Connection.open(local_supabase.api_url, local_supabase.secret_key)
    own = await Connection.open(
        local_supabase.api_url, Credentials(local_supabase.publishable_key, TokenFile(token))
    )
    try:
        await ObjectStore(everything).ensure_private("others")
        await ObjectStore(everything).put("others", "a.txt", b"theirs", "text/plain")
        worker = ObjectStore(own)
        await worker.ensure_private("results")
        await worker.put("results", "a.txt", b"ours", "text/plain")
        assert await worker.get("results", "a.txt") == b"ours"
        assert (await worker.sign("results", "a.txt", 60)).startswith(local_supabase.api_url)
        for refused in (
            worker.get("others", "a.txt"),
            worker.put("others", "b.txt", b"ours", "text/plain"),
            worker.ensure_private("more"),
        ):
            with pytest.raises((FileMissingError, PermissionDeniedError)):
                await refused
        # A renewed token reaches the storage client, too: this one may do nothing.
        token.write_text(mint_token(local_supabase.jwt_secret, expires_in=60, role="anon"))
        with pytest.raises((FileMissingError, PermissionDeniedError)):
            await worker.get("results", "a.txt")
    finally:
        await own.aclose()
        await everything.aclose()


@pytest.mark.parametrize("forged", ["user_metadata", "tenant_id"])
def test_tenants_see_their_own_tasks_only(local_supabase: Any, forged: str) -> None:
    keys = local_supabase.keys

    def member(tenant: str | None, user: str | None = None, **claims: Any) -> Caller:
        metadata = {} if tenant is None else {"tenant_id": tenant}
        token = keys.mint_user(user or str(uuid.uuid4()), app_metadata=metadata, **claims)
        return Caller(local_supabase, {"apikey": keys.publishable_key, "Authorization": f"Bearer {token}"})

    moving = str(uuid.uuid4())
    before = member("blue", moving).submit()
    run(local_supabase, "tenants.sql")
    blue, colleague, red, none = member("blue", moving), member("blue"), member("red"), member(None)
    ours, theirs, nobodys = blue.submit(), red.submit(), none.submit()
    assert blue.sees(ours, theirs, nobodys) == [True, False, False]
    assert colleague.sees(ours, theirs, nobodys) == [True, False, False]
    assert red.sees(ours, theirs, nobodys) == [False, True, False]
    assert none.sees(ours, theirs, nobodys) == [False, False, True]
    # What they may see they may steer.
    assert colleague.rpc("cancel_todo", p_id=ours).json()["agent_status"] == "cancelled"
    assert red.rpc("cancel_todo", p_id=ours).status_code == 404
    # Who moves to another tenant leaves the tasks behind, one's own included.
    assert member("red", moving).sees(ours, before) == [False, False]
    # What a user may write, into a token or a row, counts for nothing.
    claim = {"tenant_id": "blue"} if forged == "user_metadata" else "blue"
    assert member("red", **{forged: claim}).sees(ours) == [False]
    token = keys.mint_user(moving, app_metadata={"tenant_id": "red"})
    answer = httpx.post(
        f"{local_supabase.api_url}/rest/v1/todolist",
        json={"agent_type": "test", "prompt": "x", "tenant_id": "blue"},
        headers={"apikey": keys.publishable_key, "Authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


async def test_a_user_has_so_many_open_tasks_and_no_more(local_supabase: Any) -> None:
    keys = local_supabase.keys
    run(local_supabase, "quota.sql")
    with psycopg.connect(local_supabase.db_url, autocommit=True) as owner:
        owner.execute("update reactive_worker_private.limits set user_open_tasks = 3")
    ann, bob = str(uuid.uuid4()), str(uuid.uuid4())

    def member(user: str) -> Caller:
        token = keys.mint_user(user)
        return Caller(local_supabase, {"apikey": keys.publishable_key, "Authorization": f"Bearer {token}"})

    def rows(count: int, **more: Any) -> list[dict[str, Any]]:
        return [{"agent_type": "test", "prompt": f"{n}", **more} for n in range(count)]

    hers, his = member(ann), member(bob)
    back_end = Caller(local_supabase, headers(local_supabase)["service"])
    assert hers.rpc("submit_todos", p_rows=rows(4)).status_code == 429
    three = [row["id"] for row in hers.rpc("submit_todos", p_rows=rows(3)).json()]
    refused = hers.rpc("submit_todos", p_rows=rows(1))
    assert (refused.status_code, refused.json()["message"]) == (429, "a user may have at most 3 open tasks")
    his.submit()
    # A direct insert is counted as well, and what a back end submits for her is not refused.
    sent = {"apikey": keys.publishable_key, "Authorization": f"Bearer {keys.mint_user(ann)}"}
    table = f"{local_supabase.api_url}/rest/v1/todolist"
    assert httpx.post(table, json=rows(1), headers=sent).status_code == 429
    assert back_end.rpc("submit_todos", p_rows=rows(2, owner_id=ann)).status_code == 200
    # She has five now: that hinders no cancel, and a retry only while there are too many.
    for id in three:
        assert hers.rpc("cancel_todo", p_id=id).status_code == 200
    hers.submit()
    assert hers.rpc("retry_todo", p_id=three[0]).status_code == 429
    # Those that come at once do not all take the last two places.
    answers = await asyncio.gather(
        *(asyncio.to_thread(his.rpc, "submit_todos", p_rows=rows(1)) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
    async with TaskClient.from_settings(url=local_supabase.api_url, key=keys.mint_user(bob)) as client:
        with pytest.raises(QuotaExceededError, match="at most 3 open tasks"):
            await client.submit_task("test", "one more")
    # Without signing in, where that is allowed, all share one.
    run(local_supabase, "anon_demo.sql")
    visitor = Caller(local_supabase, {"apikey": keys.publishable_key})
    assert visitor.rpc("submit_todos", p_rows=rows(3)).status_code == 200
    assert visitor.rpc("submit_todos", p_rows=rows(1)).status_code == 429
