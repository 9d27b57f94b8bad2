"""Judging facts: what is as it must be, what is not, and what mends it. Pure: no clock, no network."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from reactive_worker.doctor.facts import WORKING_ROLES, Facts
from reactive_worker.doctor.findings import Finding, Kind
from reactive_worker.doctor.leftovers import judge_leftovers
from reactive_worker.doctor.limits import judge_rows, judge_timeouts
from reactive_worker.doctor.probe import Way
from reactive_worker.doctor.published import judge_published
from reactive_worker.doctor.rights import judge_rights
from reactive_worker.doctor.wanted import Wanted
from reactive_worker.models import parse_time
from reactive_worker.store.store import SCHEMA_VERSION

#: A token that ends sooner is worth a word.
RENEW_SOON = timedelta(days=7)
#: Seconds of skew that are worth a word, and from which PostgREST refuses tokens as issued in the future.
SKEW_NOTED, SKEW_REFUSED = 5.0, 30.0

PUSH = "supabase db push"
#: Without these there is nothing to hear by changes.
_NEEDED = ("publication", "wal_level")
_RESTART = (
    "Restart Realtime: the project's settings, General, Restart project; self-hosted: restart the service "
    "realtime and read its log"
)


def judge(facts: Facts, wanted: Wanted, now: datetime) -> list[Finding]:
    """One finding for everything that could be looked at, in the order in which to mend.

    Parameters
    ----------
    facts:
        What `gather` saw.
    wanted:
        What the migrations make.
    now:
        The time, to say when a token ends.
    """
    found = [_reach(facts)]
    if facts.direct_problem:
        found.append(
            Finding(
                "database",
                "fail",
                f"no direct connection: {facts.direct_problem}",
                "Copy the connection string again: on supabase.com, the button Connect (session pooler)",
                "setting",
            )
        )
    if not facts.unreachable:
        found += [_key(facts, now), *_clock(facts)]
    found += _schema(facts, wanted)
    database = facts.database
    if database is not None and database["tables"]:
        found += judge_rights(database, wanted)
        found += judge_published(database, wanted)
        found += judge_timeouts(database)
    else:
        found += _rest_tables(facts)
    found += judge_rows(facts)
    found += _push(facts, unpublished=any(one.name in _NEEDED and one.level == "fail" for one in found))
    return found + judge_leftovers(facts)


def _reach(facts: Facts) -> Finding:
    if not facts.unreachable:
        return Finding("reach", "ok", f"{facts.url} answers")
    return Finding(
        "reach",
        "fail",
        facts.unreachable,
        "SUPABASE_URL=https://<project>.supabase.co (a free project sleeps after a week: wake it in the "
        "dashboard; on this machine: reactive-worker dev)",
        "setting",
    )


def _key(facts: Facts, now: datetime) -> Finding:
    if facts.key_problem:
        return Finding(
            "key",
            "fail",
            facts.key_problem,
            "SUPABASE_SERVICE_ROLE_KEY=<the project's secret key: project settings, API keys>; a worker's "
            "token: reactive-worker token mint",
            "setting",
        )
    ends = f" until {facts.expires_at:%Y-%m-%d %H:%M} UTC" if facts.expires_at else ""
    if facts.role and facts.role not in WORKING_ROLES:
        return Finding(
            "key",
            "fail",
            f"the key is for role {facts.role}, which may not do a worker's work",
            "SUPABASE_SERVICE_ROLE_KEY=<the project's secret key>, or beside this key "
            "SUPABASE_WORKER_TOKEN=<what `reactive-worker token mint` prints>",
            "setting",
        )
    if facts.expires_at and facts.expires_at - now < RENEW_SOON:
        return Finding(
            "key",
            "warn",
            f"the token for role {facts.role} ends soon: it is good{ends}",
            "reactive-worker token mint",
            "shell",
        )
    role = f"role {facts.role}" if facts.role else "its role cannot be told"
    return Finding("key", "ok", f"accepted, {role}{ends}")


def _clock(facts: Facts) -> list[Finding]:
    if facts.skew is None:
        return []
    moved = _moved(facts.database)
    if moved and abs(moved) > SKEW_NOTED:
        return [
            Finding(
                "clock",
                "fail",
                f"tasks go by a clock that is {moved:+.0f} s off the database's own: "
                "app.settings.reactive_worker_clock_offset is set",
                "Take app.settings.reactive_worker_clock_offset away where it was set (a database, a role, "
                "the gateway): only tests move the clock",
                "setting",
            )
        ]
    off = max(0.0, abs(facts.skew) - facts.skew_precision)
    side = "behind" if facts.skew > 0 else "ahead of"
    if off <= SKEW_NOTED:
        return [Finding("clock", "ok", f"this machine and the server differ by less than {SKEW_NOTED:g} s")]
    effect = "tokens minted here are refused" if off > SKEW_REFUSED else "times in lists are off"
    return [
        Finding(
            "clock",
            "fail" if off > SKEW_REFUSED else "warn",
            f"this machine's clock is {off:.0f} s {side} the server's: {effect}",
            "sudo timedatectl set-ntp true",
            "shell",
        )
    ]


def _moved(database: dict[str, Any] | None) -> float | None:
    if database is None or database.get("task_now") is None:
        return None
    told = parse_time(database["task_now"], "task_now") - parse_time(database["now"], "now")
    return told.total_seconds()


def _schema(facts: Facts, wanted: Wanted) -> list[Finding]:
    database = facts.database
    # None of ours on record: applied by other means than the CLI, so the record says nothing.
    applied = set(wanted.versions) & set((database or {}).get("migrations") or ())
    pending = [version for version in wanted.versions if version not in applied] if applied else []
    if facts.unexposed:
        what = f"the API does not serve the schema public: {facts.unexposed}"
        return [Finding("schema", "fail", what, *_expose(database))]
    if facts.schema_missing:
        if facts.direct and database is not None and database["tables"] and not pending:
            return [
                Finding(
                    "schema",
                    "fail",
                    "the tables are there, but the API does not know the functions: its cache is old, or the "
                    "schema public is not exposed (project settings, API, exposed schemas)",
                    "notify pgrst, 'reload schema';",
                    "sql",
                )
            ]
        pending = pending or list(wanted.versions)
        what = f"the tables and functions are not there: {len(pending)} migrations are not applied"
        return [Finding("schema", "fail", what, PUSH, "shell")]
    if pending:
        what = f"{len(pending)} migrations are not applied: {', '.join(pending)}"
        return [Finding("schema", "fail", what, PUSH, "shell")]
    version = facts.schema_version
    if version is None:
        return []
    if version < SCHEMA_VERSION:
        what = f"the schema has version {version}, this reactive-worker needs {SCHEMA_VERSION}"
        if not applied:
            return [Finding("schema", "fail", what, PUSH, "shell")]
        # All files were applied, so the function was replaced by hand.
        create = wanted.functions["public.reactive_worker_schema_version()"].create
        return [
            Finding(
                "schema", "fail", what, create.replace("create function", "create or replace function"), "sql"
            )
        ]
    if facts.no_database == "missing" and database is None:
        what = f"version {version}, but without the function reactive_worker_diagnose: little can be seen"
        return [Finding("schema", "warn", what, PUSH, "shell")]
    known = f", {len(applied)} migrations are applied" if applied else ""
    return [Finding("schema", "ok", f"version {version}{known}")]


def _expose(database: dict[str, Any] | None) -> tuple[str, Kind]:
    own = (database or {}).get("roles", {}).get("authenticator", {}).get("settings", {})
    if others := own.get("pgrst.db_schemas"):
        value = f"public, {others}".replace("'", "''")
        return (
            f"alter role authenticator set pgrst.db_schemas = '{value}';\nnotify pgrst, 'reload config';",
            "sql",
        )
    return "Add public under project settings, Data API, exposed schemas", "setting"


def _rest_tables(facts: Facts) -> list[Finding]:
    refused = {table: told for table, told in facts.tables.items() if told}
    if not facts.tables or facts.role not in ("service_role", ""):
        return []
    if not refused:
        return [Finding("tables", "ok", "all can be read with this key")]
    told = "; ".join(f"{table}: {why}" for table, why in refused.items())
    return [Finding("tables", "fail", told, PUSH, "shell")]


def _push(facts: Facts, *, unpublished: bool) -> list[Finding]:
    push = facts.push
    if push is None:
        return []
    found: list[Finding] = []
    if push.problem:
        mend = "First mend schema, roles and functions, above; then look again"
        found.append(Finding("realtime", "fail", f"no probe could be sent: {push.problem}", mend, "setting"))
    elif push.changes is not None and push.broadcast is not None:
        found.append(_changes(push.changes, unpublished=unpublished))
        found.append(_broadcast(push.broadcast, changes=push.changes))
    if push.left:
        sql = "delete from public.todolist where agent_type like 'reactive-worker-doctor-%';"
        found.append(Finding("probe", "warn", f"left behind: {'; '.join(push.left)}", sql, "sql"))
    return found


def _changes(way: Way, *, unpublished: bool) -> Finding:
    name = "realtime.changes"
    if way.state == "heard":
        return Finding(name, "ok", f"heard by postgres_changes, and taken away again: {way.detail}")
    trouble = "lets nobody in" if way.state == "refused" else "is deaf"
    what = f"postgres_changes {trouble}: {way.detail}. Workers sweep, clients that follow a task poll"
    mend = "First mend publication, above; then look again" if unpublished else _RESTART
    return Finding(name, "fail", what, mend, "setting")


def _broadcast(way: Way, *, changes: Way) -> Finding:
    name = "realtime.broadcast"
    if way.state == "heard":
        return Finding(name, "ok", f"heard by broadcast, and taken away again: {way.detail}")
    if way.state == "absent":
        what = f"hints are not broadcast: {way.detail}. Workers hear changes, some 200 ms later"
        return Finding(name, "warn", what, "Upgrade the project (Realtime needs realtime.send)", "setting")
    trouble = "refuses this key" if way.state == "refused" else "is deaf"
    behind = "workers hear changes instead" if changes.state == "heard" else "workers only sweep"
    what = f"broadcast {trouble}: {way.detail}; {behind}"
    return Finding(name, "warn" if changes.state == "heard" else "fail", what, _RESTART, "setting")
