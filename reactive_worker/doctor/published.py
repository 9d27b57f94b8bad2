"""Judging what Realtime needs in the database: publication, replica identity, triggers, wal_level. Pure."""

from __future__ import annotations

from typing import Any

from reactive_worker.doctor.findings import Finding
from reactive_worker.doctor.wanted import Wanted

_PUBLICATION = "supabase_realtime"


def judge_published(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    """What `reactive_worker_diagnose` told, against what the migrations make."""
    return [
        *_wal_level(database),
        *_publication(database, wanted),
        _replica_identity(database, wanted),
        _triggers(database, wanted),
    ]


def _wal_level(database: dict[str, Any]) -> list[Finding]:
    if database["wal_level"] == "logical":
        return []
    what = f"wal_level is {database['wal_level']}: postgres_changes has nothing to read"
    return [
        Finding("wal_level", "fail", what, "alter system set wal_level = 'logical'; -- then restart", "sql")
    ]


def _publication(database: dict[str, Any], wanted: Wanted) -> list[Finding]:
    name, publication = "publication", database["publication"]
    there = [table for table in wanted.published if table in database["tables"]]
    add = "\n".join(f"alter publication {_PUBLICATION} add table public.{table};" for table in there)
    if publication is None:
        sql = f"create publication {_PUBLICATION};\n{add}"
        return [Finding(name, "fail", f"there is no publication {_PUBLICATION}", sql, "sql")]
    found: list[Finding] = []
    missing = [table for table in there if table not in publication["tables"]]
    if missing:
        sql = "\n".join(f"alter publication {_PUBLICATION} add table public.{table};" for table in missing)
        what = f"not in {_PUBLICATION}, so nobody hears of their rows: {', '.join(missing)}"
        found.append(Finding(name, "fail", what, sql, "sql"))
    if not (publication["insert"] and publication["update"]):
        sql = f"alter publication {_PUBLICATION} set (publish = 'insert, update, delete, truncate');"
        found.append(Finding(name, "fail", f"{_PUBLICATION} leaves out inserts or updates", sql, "sql"))
    if "workers" in publication["tables"] and not publication["all_tables"]:
        what = "the table workers is published: every heartbeat passes through Realtime"
        sql = f"alter publication {_PUBLICATION} drop table public.workers;"
        found.append(Finding(name, "warn", what, sql, "sql"))
    return found or [Finding(name, "ok", f"{_PUBLICATION} has {', '.join(there)}")]


def _replica_identity(database: dict[str, Any], wanted: Wanted) -> Finding:
    name = "replica_identity"
    kinds = {
        table: facts["replica_identity"]
        for table, facts in database["tables"].items()
        if table in wanted.published and facts["replica_identity"] in ("nothing", "full")
    }
    if not kinds:
        return Finding(name, "ok", "by primary key")
    sql = "\n".join(f"alter table public.{table} replica identity default;" for table in sorted(kinds))
    nothing = sorted(table for table, kind in kinds.items() if kind == "nothing")
    if nothing:
        what = f"NOTHING for {', '.join(nothing)}: PostgreSQL refuses to update a published table like that"
        return Finding(name, "fail", what, sql, "sql")
    what = (
        f"FULL for {', '.join(sorted(kinds))}: each update writes the whole old row into the WAL for nothing"
    )
    return Finding(name, "warn", what, sql, "sql")


def _triggers(database: dict[str, Any], wanted: Wanted) -> Finding:
    lost: dict[str, str] = {}
    for (table, name), create in wanted.triggers.items():
        if table not in database["tables"]:
            continue
        enabled = database["tables"][table]["triggers"].get(name)
        if enabled is None:
            lost[name] = create
        elif not enabled:
            lost[name] = f"alter table public.{table} enable trigger {name};"
    if not lost:
        return Finding("triggers", "ok", "all are there")
    # Hints are not everything: without them the same rows are heard by changes, or found by a sweep.
    only_hints = all("broadcast" in name for name in lost)
    effect = "no hints are broadcast" if only_hints else "rows are stored wrongly"
    return Finding(
        "triggers",
        "warn" if only_hints else "fail",
        f"missing or disabled, so {effect}: {', '.join(sorted(lost))}",
        "\n".join(lost.values()),
        "sql",
    )
