"""What no SQL mends: addresses, keys, migrations, Realtime itself, clocks, limits of the API, idle tasks."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.tokens import mint_token
from reactive_worker.cli import main
from reactive_worker.doctor import Finding, examine, exit_code, gather, judge
from reactive_worker.doctor.wanted import wanted
from reactive_worker.errors import ConfigurationError
from reactive_worker.local.gateway import Gateway
from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import Project, find_project
from reactive_worker.testing.database import Database
from tests.integration.doctor.patient import Patient, bad
from tests.support import insert


def one(findings: Sequence[Finding], name: str) -> Finding:
    """The finding with this name."""
    return next(finding for finding in findings if finding.name == name)


def nobody_there() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def test_an_unreachable_host(patient: Patient) -> None:
    findings = await examine(nobody_there(), patient.credentials)
    assert bad(findings) == {"reach": "fail"}
    assert len(findings) == 1, "nothing is guessed about what cannot be seen"
    assert exit_code(findings) == 3
    assert "SUPABASE_URL=" in one(findings, "reach").mend
    # Nor is a server that is down, or no Supabase at all, taken for one.
    patient.supabase.faults.rest_status = 503
    assert exit_code(await patient.look()) == 3
    patient.supabase.faults.rest_status = 404
    assert exit_code(await patient.look()) == 3
    patient.supabase.faults.reset()
    assert bad(await patient.look()) == {}


async def test_a_host_that_is_down_is_looked_into_directly(patient: Patient) -> None:
    patient.sql("alter table events disable row level security")
    findings = await examine(nobody_there(), patient.credentials, db_url=patient.supabase.db_url)
    assert bad(findings) == {"reach": "fail", "rls": "fail"}


async def test_keys_that_open_nothing(patient: Patient) -> None:
    supabase = patient.supabase
    expired = mint_token(supabase.jwt_secret, expires_in=60, now=time.time() - 7200)
    foreign = mint_token("another-project's-secret-of-at-least-32-bytes", expires_in=3600)
    for credentials, said in (
        (Credentials("sb_secret_of_another_project"), "does not accept this key"),
        (Credentials(foreign), "does not accept this key"),
        (Credentials(supabase.publishable_key, expired), "the token has expired"),
        (Credentials(supabase.publishable_key), "the key is for role anon"),
        (Credentials(supabase.anon_key), "the key is for role anon"),
        (Credentials(supabase.keys.mint_user("0b8e2a52-2f0e-4fd6-8d5f-57a5d6a32b0e")), "authenticated"),
    ):
        patient.credentials = credentials
        findings = await patient.look(probe=True)
        key = one(findings, "key")
        assert bad(findings) == {"key": "fail"}
        assert said in key.what
        assert "SUPABASE_SERVICE_ROLE_KEY=" in key.mend
        assert credentials.token() not in key.what
        assert exit_code(findings) == 1
    patient.credentials = Credentials(supabase.service_role_key)
    assert bad(await patient.look()) == {}


async def test_a_token_that_ends_soon(patient: Patient) -> None:
    token = mint_token(patient.supabase.jwt_secret, expires_in=86_400)
    patient.credentials = Credentials(patient.supabase.publishable_key, token)
    findings = await patient.look()
    assert bad(findings) == {"key": "warn"}
    assert one(findings, "key").mend == "reactive-worker token mint"


@pytest.fixture
def bare(pg_cluster: Cluster) -> Iterator[Patient]:
    """A Supabase as it is before the first `supabase db push`."""
    pg_cluster.create_database("doctor_bare")
    database, gateway = Database(pg_cluster, "doctor_bare"), Gateway(project=find_project())
    try:
        gateway.start(
            db_url=database.dsn,
            authenticator_dsn=database.authenticator_dsn,
            admin_dsn=database.admin_dsn,
        )
        yield Patient(gateway)
    finally:
        gateway.stop()
        pg_cluster.drop_database("doctor_bare")


async def test_migrations_are_missing(bare: Patient) -> None:
    for options in ({}, {"db_url": bare.supabase.db_url}):
        findings = await bare.look(probe=True, **options)
        assert bad(findings) == {"schema": "fail"}
        assert f"{len(wanted().versions)} migrations are not applied" in one(findings, "schema").what
        assert one(findings, "schema").mend == "supabase db push"
    migrate(bare.supabase.db_url, find_project(), seed=False)
    assert bad(await bare.look_until(lambda levels: not levels)) == {}


async def test_the_newest_migration_is_missing(patient: Patient) -> None:
    """What an upgrade without `supabase db push` looks like, over REST alone and directly."""
    patient.sql(
        "drop function reactive_worker_diagnose(); drop function reactive_worker_rows(integer);"
        "delete from supabase_migrations.schema_migrations where version = '20261101001400';"
        "insert into workers (id, name, lease_until)"
        " values (gen_random_uuid(), 'gone', now() - interval '1 h')"
    )
    # All that REST shows is still looked at; Realtime, too.
    findings = await patient.look_until(lambda levels: "schema" in levels, probe=True)
    assert bad(findings) == {"schema": "warn", "workers": "warn"}
    names = {finding.name for finding in findings}
    assert {"clock", "tables", "realtime.changes", "realtime.broadcast"} <= names
    findings = await patient.look(db_url=patient.supabase.db_url)
    assert bad(findings) == {"schema": "fail", "functions": "fail"}
    assert "20261101001400" in one(findings, "schema").what
    assert one(findings, "schema").mend == "supabase db push"
    migrate(patient.supabase.db_url, find_project(), seed=False)
    patient.sql("delete from workers")
    await patient.look_until(lambda levels: not levels)


async def test_the_api_does_not_see_what_is_there(patient: Patient) -> None:
    """A cache that missed a migration: only a direct look can tell it from a missing schema."""
    patient.sql("alter function reactive_worker_schema_version() rename to hidden")
    findings = await patient.look_until(lambda levels: "schema" in levels, db_url=patient.supabase.db_url)
    assert one(findings, "schema").mend == "notify pgrst, 'reload schema';"


async def test_realtime_is_deaf(patient: Patient) -> None:
    faults = patient.supabase.faults
    faults.apply({"deaf": True, "broadcast_deaf": True})
    findings = await patient.look(probe=True, timeout=1)
    assert bad(findings) == {"realtime.changes": "fail", "realtime.broadcast": "fail"}
    assert "Restart" in one(findings, "realtime.changes").mend
    # While changes are heard, broadcast is a matter of speed.
    faults.apply({"deaf": False})
    assert bad(await patient.look(probe=True, timeout=1)) == {"realtime.broadcast": "warn"}
    faults.reset()
    assert bad(await patient.look(probe=True)) == {}


async def test_realtime_lets_nobody_in(patient: Patient) -> None:
    patient.supabase.faults.apply({"refuse_joins": "Unauthorized: no", "join_refusal_delay": 0.0})
    findings = await patient.look(probe=True, timeout=1)
    assert bad(findings) == {"realtime.changes": "fail", "realtime.broadcast": "fail"}
    assert "Unauthorized: no" in one(findings, "realtime.broadcast").what
    with psycopg.connect(patient.supabase.db_url) as connection:
        assert connection.execute("select count(*) from workers").fetchone() == (0,)
    patient.supabase.faults.reset()
    assert bad(await patient.look(probe=True)) == {}


async def test_a_server_without_broadcast(patient: Patient) -> None:
    signature = "function realtime.send(jsonb, text, text, boolean)"
    with psycopg.connect(patient.admin_dsn, autocommit=True) as admin:
        admin.execute(f"alter {signature} rename to sent".encode())
        findings = await patient.look(probe=True)
        assert bad(findings) == {"realtime.broadcast": "warn"}
        assert "no function realtime.send" in one(findings, "realtime.broadcast").what
        admin.execute(f"alter {signature.replace('send', 'sent')} rename to send".encode())
    assert bad(await patient.look(probe=True)) == {}


@pytest.mark.parametrize(("seconds", "level"), [(-120, "fail"), (120, "fail"), (12, "warn"), (1, "ok")])
async def test_clocks_differ(patient: Patient, seconds: float, level: str) -> None:
    facts = await gather(
        patient.supabase.api_url, patient.credentials, probe=False, clock=lambda: time.time() + seconds
    )
    findings = judge(facts, wanted(), datetime.now(UTC))
    assert bad(findings) == ({"clock": level} if level != "ok" else {})
    if level != "ok":
        assert ("ahead of" if seconds > 0 else "behind") in one(findings, "clock").what


async def test_tasks_go_by_another_clock(patient: Patient) -> None:
    patient.supabase.faults.clock_offset = 3600.0
    findings = await patient.look()
    assert bad(findings) == {"clock": "fail"}
    assert "reactive_worker_clock_offset" in one(findings, "clock").mend
    patient.supabase.faults.reset()
    assert bad(await patient.look()) == {}


async def look_through(database: Database, project: Project) -> list[Finding]:
    """What the doctor finds when the API is set up otherwise."""
    gateway = Gateway(project=project)
    try:
        gateway.start(
            db_url=database.dsn,
            authenticator_dsn=database.authenticator_dsn,
            admin_dsn=database.admin_dsn,
        )
        return await Patient(gateway).look()
    finally:
        gateway.stop()


async def test_the_api_cuts_lists_short(database: Database) -> None:
    findings = await look_through(database, replace(find_project(), max_rows=5))
    assert bad(findings) == {"max_rows": "warn"}
    assert one(findings, "max_rows").mend.startswith("max_rows = 1000")
    assert bad(await look_through(database, replace(find_project(), max_rows=1000))) == {}


async def test_the_schema_is_not_exposed(database: Database) -> None:
    findings = await look_through(database, replace(find_project(), schemas=("graphql_public",)))
    assert bad(findings) == {"schema": "fail"}
    assert one(findings, "schema").mend == "Add public under project settings, Data API, exposed schemas"


async def test_nobody_serves_an_agent_type(patient: Patient) -> None:
    await insert(patient.supabase.db_url, ["a", "b"], agent_type="orphan")
    findings = await patient.look()
    assert bad(findings) == {"unserved": "warn"}
    assert "orphan (2, for " in one(findings, "unserved").what
    assert one(findings, "unserved").mend == "reactive-worker run mymodule:MyExecutor --agent-type orphan"
    patient.sql(
        "insert into workers (id, agent_types, lease_until) values"
        " (gen_random_uuid(), '{orphan}', now() + interval '1 min')"
    )
    assert bad(await patient.look()) == {}


async def test_a_worker_that_hears_nothing(patient: Patient) -> None:
    patient.sql(
        "insert into workers (id, name, agent_types, lease_until, info) values"
        """ (gen_random_uuid(), 'w1', '{x}', now() + interval '1 min', '{"push": "deaf"}')"""
    )
    findings = await patient.look()
    assert bad(findings) == {"workers": "warn"}
    assert "w1" in one(findings, "workers").what


async def test_a_connection_string_that_does_not_work(patient: Patient) -> None:
    findings = await patient.look(db_url="postgresql://postgres:hush-hush@127.0.0.1:1/postgres")
    assert bad(findings) == {"database": "fail"}
    assert "hush-hush" not in one(findings, "database").what


async def test_a_direct_look_needs_psycopg(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'reactive-worker\[doctor\]'"):
        await patient.look(db_url="postgresql://x")


async def test_the_command_line(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPABASE_URL", patient.supabase.api_url)
    monkeypatch.setenv("SUPABASE_SECRET_KEY", patient.supabase.secret_key)
    monkeypatch.setenv("SUPABASE_DB_URL", patient.supabase.db_url)

    async def run(*words: str) -> tuple[int, str]:
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            code = await asyncio.to_thread(main, ["doctor", *words])
        return code, out.getvalue()

    code, text = await run("--json", "--db-url")
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert {line["level"] for line in lines} == {"ok"}
    assert lines[0].keys() == {"name", "level", "what", "mend", "kind"}
    patient.sql("alter table events disable row level security")
    code, text = await run("--no-probe")
    assert code == 1
    assert "fail  rls " in text
    assert "alter table public.events enable row level security;" in text
    assert "0 warn, 1 fail" in text
    assert (await run("--no-probe", "--url", nobody_there()))[0] == 3
    monkeypatch.delenv("SUPABASE_DB_URL")
    assert (await run("--db-url"))[0] == 2
    assert (await run("--timeout", "0"))[0] == 2
