"""Judging fixed facts: levels, words and mends, without anything to look at."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reactive_worker.doctor import Facts, Finding, exit_code, judge
from reactive_worker.doctor.probe import PushFacts, Way
from reactive_worker.doctor.wanted import EVERYTHING, wanted

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TIME = NOW.isoformat()


def database() -> dict[str, Any]:
    """What `reactive_worker_diagnose` says when all is as the migrations make it."""
    made = wanted()
    names = {signature.split("(")[0].removeprefix("public.") for signature in made.functions}
    role: dict[str, Any] = {
        "member_of": [],
        "schemas": ["public", "reactive_worker_private"],
        "settings": {},
        "settings_here": [],
    }
    tables = {
        table: {
            "rls": True,
            "replica_identity": "default",
            "grants": {who: sorted(rights) for (where, who), rights in made.grants.items() if where == table},
            "column_grants": {
                who: {right: sorted(columns)}
                for (where, who, right), columns in made.column_grants.items()
                if where == table
            },
            "policies": {
                name: {"command": words[words.index("for") + 1], "roles": [words[words.index("to") + 1]]}
                for (where, name), create in made.policies.items()
                if where == table and (words := create.split('" on ')[1].split())
            },
            "triggers": {name: True for where, name in made.triggers if where == table},
        }
        for table in made.tables
    }
    return {
        "now": TIME,
        "task_now": TIME,
        "database": "postgres",
        "server_version": 170004,
        "wal_level": "logical",
        "covers": {"tables": made.tables, "functions": sorted(names)},
        "migrations": list(made.versions),
        "roles": {
            "anon": {**role, "settings": {"statement_timeout": "3s"}},
            "authenticated": {**role, "settings": {"statement_timeout": "8s"}},
            "service_role": role,
            "reactive_worker": {**role, "member_of": ["anon"]},
            "authenticator": {
                **role,
                "member_of": ["anon", "authenticated", "reactive_worker", "service_role"],
                "settings": {"statement_timeout": "8s"},
            },
        },
        "publication": {
            "all_tables": False,
            "insert": True,
            "update": True,
            "delete": True,
            "tables": made.published,
        },
        "realtime": {"send": True, "messages": True, "hints_policy": True},
        "tables": tables,
        "functions": {
            signature: {
                "security_definer": function.security_definer,
                "search_path": '""',
                "execute": sorted(function.roles),
            }
            for signature, function in made.functions.items()
        },
        "workers": [],
        "strays": {"count": 0, "first": None},
        "waiting": [],
    }


HEALTHY = Facts(
    url="http://x",
    role="service_role",
    schema_version=2,
    database=database(),
    rows=1000,
    skew=0.1,
    skew_precision=0.1,
    push=PushFacts(Way("heard"), Way("heard")),
)


def judged(facts: Facts) -> dict[str, Finding]:
    """What is not ok, by name."""
    return {finding.name: finding for finding in judge(facts, wanted(), NOW) if finding.level != "ok"}


def spoiled(path: str, value: Any) -> Facts:
    """Healthy facts but for one: `path` is ``roles/anon/settings``; a value of None deletes."""
    changed = copy.deepcopy(HEALTHY.database) or {}
    *way, last = path.split("/")
    place = changed
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return replace(HEALTHY, database=changed)


def test_healthy_facts_have_no_findings_but_ok() -> None:
    findings = judge(HEALTHY, wanted(), NOW)
    assert {finding.level for finding in findings} == {"ok"}
    assert not any(finding.mend or finding.kind for finding in findings)
    assert exit_code(findings) == 0


FINISH = "functions/public.finish_todos(uuid, jsonb)"


@pytest.mark.parametrize(
    ("path", "value", "name", "level", "mend"),
    [
        ("wal_level", "replica", "wal_level", "fail", "alter system set wal_level = 'logical'"),
        ("tables/steering", None, "tables", "fail", "backup"),
        ("tables/events/rls", False, "rls", "fail", "alter table public.events enable row level security;"),
        ("tables/events/policies", {}, "policies", "fail", 'create policy "who sees a task sees its events"'),
        ("realtime/hints_policy", False, "policies", "warn", 'create policy "workers hear their hints"'),
        (
            "tables/workers/grants/PUBLIC",
            ["select"],
            "grants",
            "fail",
            "revoke select on table public.workers",
        ),
        ("tables/workers/grants/anon", ["select"], "grants", "warn", "from anon;"),
        # What nobody can do through the API is left as it is: old projects grant it to everybody.
        ("tables/workers/grants/anon", ["truncate", "references"], "", "", ""),
        (
            "tables/workers/grants/service_role",
            ["select"],
            "grants",
            "fail",
            "grant delete, insert, update on",
        ),
        (FINISH, None, "functions", "fail", "create function public.finish_todos"),
        (f"{FINISH}/execute", ["service_role"], "functions", "fail", "to reactive_worker;"),
        (
            f"{FINISH}/execute",
            ["PUBLIC", "service_role", "reactive_worker"],
            "functions",
            "fail",
            "from public;",
        ),
        (f"{FINISH}/execute", ["anon", "service_role", "reactive_worker"], "functions", "warn", "from anon;"),
        (f"{FINISH}/search_path", "public", "functions", "fail", "set search_path = '';"),
        (f"{FINISH}/security_definer", False, "functions", "fail", "security definer;"),
        ("roles/reactive_worker", None, "roles", "fail", "create role reactive_worker nologin;"),
        (
            "roles/authenticator/member_of",
            ["anon"],
            "roles",
            "fail",
            "grant reactive_worker to authenticator;",
        ),
        ("roles/reactive_worker/member_of", [], "roles", "warn", "grant anon to reactive_worker;"),
        (
            "roles/service_role/schemas",
            ["public"],
            "roles",
            "fail",
            "grant usage on schema reactive_worker_p",
        ),
        (
            "roles/service_role/settings",
            {"statement_timeout": "2s"},
            "statement_timeout",
            "warn",
            "alter role service_role set statement_timeout = '8s';",
        ),
        (
            "roles/authenticator/settings",
            {"statement_timeout": "500"},
            "statement_timeout",
            "fail",
            "alter role authenticator set",
        ),
        ("roles/authenticator/settings", {"statement_timeout": "0"}, "", "", ""),
        ("tables/todolist/triggers/todolist_fill_in", False, "triggers", "fail", "enable trigger"),
        ("tables/todolist/triggers/todolist_broadcast_insert", None, "triggers", "warn", "create trigger"),
        (
            "tables/todolist/replica_identity",
            "nothing",
            "replica_identity",
            "fail",
            "replica identity default;",
        ),
        ("tables/todolist/replica_identity", "index", "", "", ""),
        ("migrations", ["20261101000000"], "schema", "fail", "supabase db push"),
        # Applied with psql, or before the CLI kept a record: unknown, and so not called wrong.
        ("migrations", [], "", "", ""),
        ("migrations", ["20200101000000"], "", "", ""),
        ("strays", {"count": 7, "first": ["a"]}, "stuck", "fail", "reactive_worker_private.put_back"),
    ],
)
def test_each_fault_has_its_level_and_its_mend(
    path: str, value: Any, name: str, level: str, mend: str
) -> None:
    found = judged(spoiled(path, value))
    assert set(found) == ({name} if name else set())
    if name:
        assert found[name].level == level
        assert mend in found[name].mend
        assert found[name].kind


def test_a_publication_that_is_gone_is_made_with_its_tables() -> None:
    found = judged(replace(HEALTHY, database={**database(), "publication": None}))
    sql = found["publication"].mend
    assert sql.startswith("create publication supabase_realtime;")
    assert "add table public.todolist;" in sql


def test_revoking_a_right_on_a_table_gives_back_the_same_right_on_columns() -> None:
    found = judged(spoiled("tables/todolist/grants/authenticated", ["insert", "select"]))
    sql = found["grants"].mend
    assert sql.startswith("revoke insert on table public.todolist from authenticated;")
    assert "grant insert (agent_type, available_at," in sql


def test_a_function_that_is_restored_is_open_to_its_roles_only() -> None:
    sql = judged(spoiled(FINISH, None))["functions"].mend
    signature = "public.finish_todos(uuid, jsonb)"
    for line in (
        f"alter function {signature} security definer;",
        f"revoke all on function {signature} from public, anon, authenticated, service_role, react",
        f"grant execute on function {signature} to reactive_worker, service_role;",
    ):
        assert line in sql


@pytest.mark.parametrize(
    ("changes", "broadcast", "levels"),
    [
        ("heard", "absent", {"realtime.broadcast": "warn"}),
        ("heard", "deaf", {"realtime.broadcast": "warn"}),
        ("heard", "refused", {"realtime.broadcast": "warn"}),
        ("deaf", "heard", {"realtime.changes": "fail"}),
        ("refused", "refused", {"realtime.changes": "fail", "realtime.broadcast": "fail"}),
    ],
)
def test_realtime(changes: Any, broadcast: Any, levels: dict[str, str]) -> None:
    found = judged(replace(HEALTHY, push=PushFacts(Way(changes, "why"), Way(broadcast, "why"))))
    assert {name: finding.level for name, finding in found.items()} == levels
    assert all("why" in finding.what for finding in found.values())


def test_a_probe_that_cannot_be_sent_or_taken_away() -> None:
    assert judged(replace(HEALTHY, push=PushFacts(problem="no")))["realtime"].level == "fail"
    left = judged(replace(HEALTHY, push=PushFacts(Way("heard"), Way("heard"), left=("the probe's task",))))
    assert left["probe"].level == "warn"
    assert left["probe"].mend.startswith("delete from public.todolist where agent_type like")


def _worker(**more: Any) -> dict[str, Any]:
    return {
        "id": "w",
        "name": "w1",
        "agent_types": ["a"],
        "push": "healthy",
        "alive": True,
        "expired_seconds": 0,
        "holds": 0,
        **more,
    }


@pytest.mark.parametrize(
    ("worker", "level"),
    [
        ({}, None),
        ({"push": "deaf"}, "warn"),
        # Just gone: the next sweep sees to it.
        ({"alive": False, "expired_seconds": 30, "holds": 3}, None),
        ({"alive": False, "expired_seconds": 90}, "warn"),
        ({"alive": False, "expired_seconds": 90, "holds": 3}, "fail"),
    ],
)
def test_workers(worker: dict[str, Any], level: str | None) -> None:
    found = judged(spoiled("workers", [_worker(**worker)]))
    assert {name: finding.level for name, finding in found.items()} == ({"workers": level} if level else {})
    if level and not worker.get("alive", True):
        assert found["workers"].mend == "select public.unregister_worker('w');"


def test_tasks_nobody_serves_are_named_but_not_all_of_them() -> None:
    waiting = [{"agent_type": f"t{n}", "due": n, "oldest_seconds": 5.0, "served": n == 0} for n in range(9)]
    found = judged(spoiled("waiting", waiting))
    assert found["unserved"].level == "warn"
    assert "t1 (1, for 5 s), " in found["unserved"].what
    assert "t0" not in found["unserved"].what
    assert "and 3 more; no worker is alive" in found["unserved"].what


def test_what_is_pasted_into_a_shell_is_quoted() -> None:
    waiting = [
        {"agent_type": name, "due": 1, "oldest_seconds": 5.0, "served": False}
        for name in ("x; rm -rf ~", "\x1b[2J\nreboot")
    ]
    found = judged(spoiled("waiting", waiting))["unserved"]
    assert found.mend == "reactive-worker run mymodule:MyExecutor --agent-type 'x; rm -rf ~'"
    assert found.what.isprintable()


def test_changes_that_are_not_published_are_mended_there() -> None:
    facts = replace(
        spoiled("publication/tables", ["events"]), push=PushFacts(Way("refused", "why"), Way("heard"))
    )
    found = judged(facts)
    assert found["publication"].level == "fail"
    assert found["realtime.changes"].mend == "First mend publication, above; then look again"


def test_what_cannot_be_reached_is_not_guessed_at() -> None:
    findings = judge(Facts("http://x", unreachable="nobody is there"), wanted(), NOW)
    assert [(finding.name, finding.level) for finding in findings] == [("reach", "fail")]
    assert exit_code(findings) == 3


def test_an_old_schema_is_told_from_missing_migrations() -> None:
    assert judged(replace(HEALTHY, schema_version=0))["schema"].kind == "sql"
    unknown = replace(HEALTHY, schema_version=0, database=None, no_database="missing")
    assert judged(unknown)["schema"].mend == "supabase db push"
    assert judged(replace(HEALTHY, schema_version=2)) == {}, "older workers run against newer schemas"


def test_a_schema_that_is_not_exposed_is_added_where_that_is_set() -> None:
    facts = replace(
        spoiled("roles/authenticator/settings", {"pgrst.db_schemas": "api"}),
        schema_version=None,
        unexposed="no",
        rows=None,
        push=None,
    )
    assert judged(facts)["schema"].mend.startswith(
        "alter role authenticator set pgrst.db_schemas = 'public, api';"
    )
    assert judged(replace(facts, database=None))["schema"].kind == "setting"


@pytest.mark.parametrize(("days", "level"), [(90, None), (3, "warn")])
def test_a_key_that_ends(days: int, level: str | None) -> None:
    found = judged(replace(HEALTHY, expires_at=NOW + timedelta(days=days)))
    assert ({finding.level for finding in found.values()} or {None}) == {level}


def test_the_list_of_rights_is_what_the_api_can_ask_for() -> None:
    assert {"select", "insert", "update", "delete"} == EVERYTHING
