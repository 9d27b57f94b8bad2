"""Judging what was left behind: expired workers, stuck rows, tasks that nobody serves. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from reactive_worker.access.safe_text import safe_text
from reactive_worker.doctor.facts import Facts
from reactive_worker.doctor.findings import Finding

#: How many are named; the rest is counted.
NAMED = 5
#: Seconds. A worker looks for others' leftovers with each sweep; before that nothing is amiss.
PATIENCE = 60.0
#: Seconds after which nobody counts any more.
_AGES = 1e10

_STRAYS = """\
select reactive_worker_private.put_back(array(
  select t.id from public.todolist t
  where t.agent_status = 'in_progress'
    and not exists (select from public.workers w where w.id = t.worker_id)
  order by t.id limit 1000 for update skip locked), 'lost');"""


def judge_leftovers(facts: Facts) -> list[Finding]:
    """What `reactive_worker_diagnose`, or `list_workers` alone, told."""
    database = facts.database
    if database is not None and database.get("workers") is not None:
        workers = database["workers"]
        return [
            *judge_workers(workers),
            *_strays(database["strays"]),
            *judge_waiting(database["waiting"], workers),
        ]
    if facts.workers is None:
        return []
    # What list_workers calls the same things. It does not say since when one is expired.
    told: list[dict[str, Any]] = [
        {
            **worker,
            "holds": worker["in_progress"],
            "push": None,
            "expired_seconds": 0.0 if worker["alive"] else PATIENCE + 1,
        }
        for worker in facts.workers
    ]
    return judge_workers(told)


def judge_workers(workers: Sequence[dict[str, Any]]) -> list[Finding]:
    """Workers that are gone and not cleared away, or hear nothing."""
    found: list[Finding] = []
    expired = [
        worker for worker in workers if not worker["alive"] and _seconds(worker["expired_seconds"]) > PATIENCE
    ]
    holding = [worker for worker in expired if worker["holds"]]
    if expired:
        held = sum(worker["holds"] for worker in holding)
        stuck = f", holding {held} tasks that wait for it" if held else ""
        sql = "\n".join(f"select public.unregister_worker('{worker['id']}');" for worker in expired)
        what = f"{len(expired)} expired and not cleared away{stuck}: {_names(w['name'] for w in expired)}"
        found.append(
            Finding(
                "workers",
                "fail" if held else "warn",
                f"{what}. Any running worker's sweep does it; without one:",
                sql,
                "sql",
            )
        )
    deaf = [worker for worker in workers if worker["alive"] and worker.get("push") == "deaf"]
    if deaf:
        what = f"hear no pushes and only sweep: {_names(worker['name'] for worker in deaf)}"
        found.append(Finding("workers", "warn", what, "See what realtime.changes says", "setting"))
    alive = sum(1 for worker in workers if worker["alive"])
    return found or [Finding("workers", "ok", f"{alive} alive, none left behind")]


def _strays(strays: dict[str, Any]) -> list[Finding]:
    if not strays["count"]:
        return [Finding("stuck", "ok", "no task is held by a worker that is gone")]
    what = f"{strays['count']} tasks are in progress with nobody: {_names(strays['first'] or [])}"
    return [
        Finding(
            "stuck",
            "fail",
            f"{what}. Any running worker's sweep puts them back; without one:",
            _STRAYS,
            "sql",
        )
    ]


def judge_waiting(waiting: Sequence[dict[str, Any]], workers: Sequence[dict[str, Any]]) -> list[Finding]:
    """Tasks that are due and that nobody serves."""
    unserved = [one for one in waiting if not one["served"]]
    if not unserved:
        return [Finding("unserved", "ok", "every waiting task has a worker for its agent type")]
    told = _names(
        f"{one['agent_type']} ({one['due']}, for {_seconds(one['oldest_seconds']):.0f} s)" for one in unserved
    )
    served = sorted({name for worker in workers if worker["alive"] for name in worker["agent_types"]})
    alive = f"the living ones serve {_names(served)}" if served else "no worker is alive"
    # An agent type is whatever somebody wrote into a row: what is pasted into a shell is quoted, or left out.
    mend = "\n".join(
        f"reactive-worker run mymodule:MyExecutor --agent-type {shlex.quote(one['agent_type'])}"
        for one in unserved[:NAMED]
        if one["agent_type"].isprintable()
    )
    return [Finding("unserved", "warn", f"tasks wait that no worker serves: {told}; {alive}", mend, "shell")]


def _seconds(value: object) -> float:
    """A time span as JSON; a row may say -infinity, which PostgreSQL tells as text or not at all."""
    if value == "Infinity":
        return _AGES
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(min(value, _AGES))


def _names(names: Iterable[Any]) -> str:
    # What somebody wrote into a row must not move the cursor of whoever reads this.
    listed = [safe_text(name) for name in names]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
