"""`reactive-worker doctor` against a real Supabase that was spoiled on purpose, once for each test.

Each test asserts that the fault is found at its level, and that nothing is found any more once the mend the
finding names has been applied.
"""

from __future__ import annotations

import psycopg
import pytest

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.tokens import mint_token
from reactive_worker.doctor import exit_code, gather
from reactive_worker.doctor.wanted import wanted
from tests.integration.doctor.patient import Patient, bad


async def test_a_healthy_stack_has_nothing_to_mend(patient: Patient) -> None:
    findings = await patient.look(probe=True)
    assert bad(findings) == {}
    assert exit_code(findings) == 0
    assert {finding.name for finding in findings} == {
        *("reach", "key", "clock", "schema", "tables", "roles", "rls", "policies", "grants", "functions"),
        *("publication", "replica_identity", "triggers", "statement_timeout", "max_rows"),
        *("realtime.changes", "realtime.broadcast", "workers", "stuck", "unserved"),
    }
    # The probe took itself away.
    with psycopg.connect(patient.supabase.db_url) as connection:
        for table in ("todolist", "events", "workers", "worker_mailbox"):
            assert connection.execute(f"select count(*) from {table}".encode()).fetchone() == (0,)


async def test_a_workers_token_is_enough(patient: Patient) -> None:
    token = mint_token(patient.supabase.jwt_secret, expires_in=90 * 86_400)
    patient.credentials = Credentials(patient.supabase.publishable_key, token)
    findings = await patient.look(probe=True)
    assert bad(findings) == {}
    key = next(finding for finding in findings if finding.name == "key")
    assert key.what.startswith("accepted, role reactive_worker until")
    assert any(finding.name == "realtime.broadcast" for finding in findings)


async def test_everything_the_migrations_make_is_looked_at(patient: Patient) -> None:
    """Or a function that is added later would be missing without anybody noticing."""
    facts = await gather(patient.supabase.api_url, patient.credentials, probe=False)
    assert facts.database is not None
    made = wanted()
    covers = facts.database["covers"]
    public = {
        name.removeprefix("public.").partition("(")[0] for name in made.functions if "private" not in name
    }
    assert set(covers["functions"]) == public, "name it in 20261101001400_doctor.sql"
    assert set(covers["tables"]) == set(made.tables)
    assert set(facts.database["functions"]) == set(made.functions)
    assert facts.database["migrations"] == made.versions
    for table, told in facts.database["tables"].items():
        assert set(told["triggers"]) == {name for where, name in made.triggers if where == table}
        assert set(told["policies"]) == {name for where, name in made.policies if where == table}


SPOILED = {
    "a table is out of the publication": (
        "alter publication supabase_realtime drop table public.todolist",
        {"publication": "fail"},
    ),
    "no publication": ("drop publication supabase_realtime", {"publication": "fail"}),
    "heartbeats are published": (
        "alter publication supabase_realtime add table public.workers",
        {"publication": "warn"},
    ),
    "updates are not published": (
        "alter publication supabase_realtime set (publish = 'insert')",
        {"publication": "fail"},
    ),
    "row level security is off": ("alter table events disable row level security", {"rls": "fail"}),
    "a policy was dropped": ('drop policy "owners read their tasks" on todolist', {"policies": "fail"}),
    "a policy is for everybody": (
        'drop policy "workers hear their mailboxes" on worker_mailbox;'
        'create policy "workers hear their mailboxes" on worker_mailbox for select to public using (true)',
        {"policies": "fail"},
    ),
    "a grant is missing": ("revoke insert on todolist from service_role", {"grants": "fail"}),
    "grants on columns are missing": (
        "revoke select (priority) on todolist from reactive_worker;"
        "revoke insert (prompt) on todolist from authenticated",
        {"grants": "fail"},
    ),
    "anybody may read": ("grant select on workers to public", {"grants": "fail"}),
    "users may write": (
        "grant insert, update on todolist to authenticated; grant select on todolist to anon",
        {"grants": "warn"},
    ),
    "EXECUTE is lost": (
        "revoke execute on function claim_todos(uuid, uuid[], integer, bigint)"
        " from reactive_worker, service_role",
        {"functions": "fail"},
    ),
    "EXECUTE is open to PUBLIC": (
        "grant execute on function finish_todos(uuid, jsonb) to public;"
        "grant execute on function reactive_worker_private.put_back(uuid[], text, boolean) to public",
        {"functions": "fail"},
    ),
    "EXECUTE is open to anon": ("grant execute on function list_workers() to anon", {"functions": "warn"}),
    "a function is gone": ("drop function claim_todos(uuid, uuid[], integer, bigint)", {"functions": "fail"}),
    "a function lost its search_path and its rights": (
        "alter function release_todos(uuid, jsonb) reset search_path;"
        "alter function release_todos(uuid, jsonb) security invoker",
        {"functions": "fail"},
    ),
    "the private schema cannot be used": (
        "revoke usage on schema reactive_worker_private from authenticated",
        {"roles": "fail"},
    ),
    "a trigger is missing": ("drop trigger todolist_fill_in on todolist", {"triggers": "fail"}),
    "hints are disabled": (
        "alter table todolist disable trigger todolist_broadcast_insert",
        {"triggers": "warn"},
    ),
    "REPLICA IDENTITY NOTHING": (
        "alter table todolist replica identity nothing",
        {"replica_identity": "fail"},
    ),
    "REPLICA IDENTITY FULL": ("alter table events replica identity full", {"replica_identity": "warn"}),
    "a tiny statement_timeout": (
        "do $$ begin execute format("
        "'alter role reactive_worker in database %I set statement_timeout = ''200ms''', current_database());"
        " end $$",
        {"statement_timeout": "fail"},
    ),
    "the schema's version is too old": (
        "create or replace function reactive_worker_schema_version() returns integer"
        " language sql immutable set search_path = '' as 'select 0'",
        {"schema": "fail"},
    ),
    "an expired worker holds tasks": (
        "with w as (insert into workers (id, name, lease_until, heartbeat_at) values"
        " (gen_random_uuid(), 'gone', now() - interval '1 h', now() - interval '1 h') returning id)"
        " insert into todolist (agent_type, prompt, agent_status, attempt, worker_id, available_at)"
        " select 'test', 'stuck', 'in_progress', 1, id, now() + interval '1 day' from w",
        {"workers": "fail"},
    ),
    "a task is held by nobody": (
        "insert into todolist (agent_type, prompt, agent_status, attempt, worker_id)"
        " values ('test', 'stuck', 'in_progress', 1, gen_random_uuid())",
        {"stuck": "fail"},
    ),
}


@pytest.mark.parametrize("fault", SPOILED)
async def test_it_is_found_and_the_mend_mends_it(patient: Patient, fault: str) -> None:
    spoil, found = SPOILED[fault]
    patient.sql(spoil)
    findings = await patient.look_until(lambda levels: levels == found)
    assert exit_code(findings) == (1 if "fail" in found.values() else 0)
    for finding in findings:
        if finding.level != "ok":
            assert finding.kind == "sql"
            patient.sql(finding.mend)
    # Rows that were put back wait for a worker now, which is another matter.
    assert set(bad(await patient.look_until(lambda levels: levels.keys() <= {"unserved"}))) <= {"unserved"}
