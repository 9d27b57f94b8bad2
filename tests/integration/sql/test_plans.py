"""What the hot functions read: as much with a hundred thousand tasks waiting as with a hundred.

Counted in buffers and index scans, never in seconds.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import call_statement, event, result

FEW = 100
MANY = 20_000
VERY_MANY = 100_000

#: Three levels of index pages to go down instead of one. Reading the backlog would be a factor of a thousand.
DEEPER = 2.5


class Meter:
    """The owner's session, which measures what a call reads and then takes it back."""

    def __init__(self, database: Database) -> None:
        self.connection = psycopg.connect(database.dsn, autocommit=True)
        self.worker = str(uuid.uuid4())
        self.call(
            "register_worker",
            p_worker_id=self.worker,
            p_name="w",
            p_agent_types=["echo"],
            p_concurrency=100,
            p_lease_seconds=3600,
        )

    def call(self, function: str, **arguments: Any) -> Any:
        statement, values = call_statement(function, arguments)
        row = self.connection.execute(statement, values).fetchone()
        assert row is not None
        return row[0]

    def fill(self, count: int, columns: Mapping[str, str] | None = None) -> None:
        """Insert rows without the trigger's cost; `columns` are expressions of `i`."""
        columns = {"agent_type": "'echo'", "prompt": "'task ' || i", **(columns or {})}
        self.connection.execute("alter table todolist disable trigger todolist_fill_in")
        self.connection.execute(
            sql.SQL("insert into todolist ({}) select {} from generate_series(1, %s) i").format(
                sql.SQL(", ").join(sql.Identifier(name) for name in columns),
                sql.SQL(", ").join(sql.SQL(text) for text in columns.values()),  # type: ignore[arg-type]
            ),
            [count],
        )
        self.connection.execute("alter table todolist enable trigger todolist_fill_in")

    def analyze(self) -> None:
        self.connection.execute("vacuum (analyze) todolist")

    def buffers(self, function: str, **arguments: Any) -> int:
        """Pages a call touches; its effects are rolled back."""
        statement, values = call_statement(function, arguments)
        explain = sql.SQL("explain (analyze, buffers, timing off, format json) ") + statement
        pages = 0
        for _ in range(2):  # the first time counts reading the catalogs, too
            with self.connection.transaction(force_rollback=True):
                row = self.connection.execute(explain, values).fetchone()
            assert row is not None
            plan = row[0][0]["Plan"]
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return pages

    def scans(self, function: str, **arguments: Any) -> dict[str, int]:
        """How often a call scanned todolist and its indexes."""
        counted = (
            "select c.relname, pg_stat_get_xact_numscans(c.oid) from pg_class c where c.relname ~ '^todolist'"
        )
        with self.connection.transaction(force_rollback=True):
            before = dict(self.connection.execute(counted).fetchall())
            self.call(function, **arguments)
            after = dict(self.connection.execute(counted).fetchall())
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    def best(self, limit: int = 200) -> list[str]:
        answer = self.call("sweep_todos", p_worker_id=self.worker, p_agent_types=["echo"], p_limit=limit)
        return [row["id"] for row in answer["candidates"]]

    def costs(self) -> dict[str, int]:
        """Pages of each hot call: a sweep for 50, a claim, events for and the end of 50 tasks."""
        sweep = {"p_worker_id": self.worker, "p_agent_types": ["echo"], "p_limit": 50}
        ids = self.best(50)
        claim = {"p_worker_id": self.worker, "p_ids": ids, "p_want": 50}
        costs = {"sweep": self.buffers("sweep_todos", **sweep), "claim": self.buffers("claim_todos", **claim)}
        with self.connection.transaction(force_rollback=True):
            runs = self.call("claim_todos", **claim)["claimed"]
            costs["append"] = self.buffers("append_events", **self.events(runs))
            costs["finish"] = self.buffers("finish_todos", **self.results(runs))
        return costs

    def events(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        items = [
            {"todolist_id": run["id"], "attempt": run["attempt"], **event(run["seq"] + 1)} for run in runs
        ]
        return {"p_worker_id": self.worker, "p_events": items}

    def results(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"p_worker_id": self.worker, "p_results": [result(run) for run in runs]}


@pytest.fixture
def meter(database: Database) -> Generator[Meter]:
    meter = Meter(database)
    with contextlib.closing(meter.connection):
        yield meter


def test_costs_do_not_grow_with_the_backlog(meter: Meter) -> None:
    meter.fill(FEW)
    meter.analyze()
    with_few = meter.costs()
    meter.fill(VERY_MANY - FEW)
    meter.analyze()
    with_many = meter.costs()
    for name, pages in with_few.items():
        assert with_many[name] <= pages * DEEPER, (name, with_few, with_many)

    ids = meter.best(50)
    sweep = {"p_worker_id": meter.worker, "p_agent_types": ["echo"], "p_limit": 50}
    claim = {"p_worker_id": meter.worker, "p_ids": ids, "p_want": 50}
    swept, claimed = meter.scans("sweep_todos", **sweep), meter.scans("claim_todos", **claim)
    assert "todolist" not in swept | claimed, "a sequential scan"
    assert set(swept) == {"todolist_pending_best_idx", "todolist_pending_due_idx"}
    assert set(claimed) == {"todolist_pkey"}


def test_costs_do_not_grow_when_the_planner_knows_nothing_of_the_backlog(meter: Meter) -> None:
    """A burst after a quiet time: statistics say that all is done, and plans are kept from then."""
    meter.fill(FEW, {"agent_status": "'completed'"})
    meter.fill(1)
    meter.analyze()
    meter.connection.execute("alter table todolist set (autovacuum_enabled = false)")
    for _ in range(6):  # plpgsql keeps a plan after five calls
        meter.best()
    meter.fill(FEW - 1)
    with_few = meter.costs()
    meter.fill(MANY - FEW)
    with_many = meter.costs()
    for name, pages in with_few.items():
        assert with_many[name] <= pages * DEEPER, (name, with_few, with_many)


def test_a_sweep_does_not_step_over_what_is_scheduled_for_later(meter: Meter) -> None:
    meter.fill(10)
    sweep = {"p_worker_id": meter.worker, "p_agent_types": ["echo"], "p_limit": 200}
    alone = meter.buffers("sweep_todos", **sweep)
    meter.fill(MANY, {"available_at": "now() + interval '1 day'", "priority": "mod(i, 1000)"})
    meter.analyze()
    assert len(meter.best()) == 10
    assert meter.buffers("sweep_todos", **sweep) <= alone + 30


def test_a_sweep_with_a_thousand_priorities_stops_when_it_has_enough(meter: Meter) -> None:
    meter.fill(MANY, {"priority": "mod(i, 1000)"})
    meter.analyze()
    sweep = {"p_worker_id": meter.worker, "p_agent_types": ["echo"], "p_limit": 200}
    # 200 rows from ten priorities of twenty rows each, wherever they lie in the table.
    assert meter.buffers("sweep_todos", **sweep) < 700


#: A hundred thousand rows of which few or all are due, as expressions of `i`.
SHAPES = {
    "one priority": {},
    "a priority each": {"priority": "i"},
    "all for later, a priority each": {"priority": "i", "available_at": "now() + interval '1 day'"},
    "due ones below priorities of others for later": {
        "priority": "case when i > 600 then i else 0 end",
        "available_at": "case when i > 600 then now() + interval '1 day' else now() - interval '1 hour' end",
    },
    "an owner each": {"owner_id": "gen_random_uuid()"},
    "an owner and a priority each, most for later": {
        "owner_id": "gen_random_uuid()",
        "priority": "mod(i, 1000)",
        "available_at": "now() + case when mod(i, 100) = 0 then interval '-1 hour' else interval '1 day' end",
    },
    "one owner with a priority each for later": {
        "owner_id": "case when i > 1000 then md5('one')::uuid else gen_random_uuid() end",
        "priority": "i",
        "available_at": "now() + case when i > 1000 then interval '1 day' else interval '-1 hour' end",
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sweep_reads_a_bounded_number_of_pages_whatever_waits(meter: Meter, shape: str) -> None:
    columns = SHAPES[shape]
    meter.fill(VERY_MANY, columns)
    meter.analyze()
    due = meter.connection.execute(
        "select count(*) from todolist where available_at <= public.reactive_worker_now()"
    ).fetchone()
    assert due is not None
    for fair_by in (None, "owner_id"):
        sweep = {"p_worker_id": meter.worker, "p_agent_types": ["echo"], "p_limit": 500, "p_fair_by": fair_by}
        answer = meter.call("sweep_todos", **sweep)
        # It fills, even if it has to stop looking for better ones.
        assert len(answer["candidates"]) == min(500, due[0])
        # 500 rows wherever they lie, and some three pages for each of a bounded number of steps.
        assert meter.buffers("sweep_todos", **sweep) < 20_000
        assert "todolist" not in meter.scans("sweep_todos", **sweep), "a sequential scan"
        if fair_by is None and shape in ("one priority", "a priority each"):
            best = meter.connection.execute(
                "select id::text from todolist order by priority desc, available_at, id limit 500"
            ).fetchall()
            assert [row["id"] for row in answer["candidates"]] == [id for (id,) in best]


def test_what_is_known_to_be_busy_hides_nothing(meter: Meter) -> None:
    meter.fill(MANY, {"priority": "i"})
    meter.analyze()
    locked = meter.best(200)
    sweep = {"p_worker_id": meter.worker, "p_agent_types": ["echo"], "p_limit": 100}
    answer = meter.call("sweep_todos", **sweep, p_except=locked)
    assert [row["priority"] for row in answer["candidates"]] == list(range(MANY - 200, MANY - 300, -1))
    assert meter.buffers("sweep_todos", **sweep, p_except=locked) < 5_000


def test_figures_stay_small_however_many_types_there_are(meter: Meter) -> None:
    meter.fill(MANY, {"agent_type": "'customer-' || i", "available_at": "now() - i * interval '1 second'"})
    meter.fill(300, {"agent_type": "'busy-' || mod(i, 3)", "agent_status": "'completed'"})
    meter.fill(3, {"agent_type": "'busiest'"})
    meter.analyze()
    stats = meter.call("todo_stats")
    assert stats["total_tasks"] == MANY + 303
    assert stats["oldest_pending_seconds"] >= MANY
    types = stats["by_agent_type"]
    # What is open comes first, then what is much.
    assert (len(types), types["busiest"]["pending_tasks"]) == (100, 3)
    others = stats["others"]
    assert others["agent_types"] == MANY + 4 - 100
    for name in ("total_tasks", "pending_tasks", "completed_tasks"):
        assert others[name] + sum(figures[name] for figures in types.values()) == stats[name]
    assert len(str(stats)) < 40_000
    few = meter.call("todo_stats", p_types=1)
    assert list(few["by_agent_type"]) == ["busiest"]
    one = meter.call("todo_stats", p_agent_type="busy-1")
    assert (one["total_tasks"], one["others"]["agent_types"], one["others"]["total_tasks"]) == (100, 0, 0)
    [(pages,)] = meter.connection.execute("select pg_relation_size('todolist') / 8192").fetchall()
    assert meter.buffers("todo_stats") < 4 * pages


def test_pruning_costs_what_it_deletes(meter: Meter) -> None:
    old = {"agent_status": "'completed'", "completed_at": "now() - i * interval '1 hour'"}
    meter.fill(FEW, old)
    meter.analyze()
    prune = {"p_older_than": "1 hour", "p_limit": 50}
    alone = meter.buffers("prune_todos", **prune)
    meter.fill(MANY, {**old, "completed_at": "now()"})
    meter.fill(MANY)
    meter.analyze()
    assert meter.buffers("prune_todos", **prune) <= alone * DEEPER


def test_figures_are_counted_without_reading_the_tasks(meter: Meter) -> None:
    meter.fill(MANY, {"agent_status": "'completed'", "prompt": "repeat('x', 500)"})
    meter.fill(FEW)
    meter.analyze()
    [(pages,)] = meter.connection.execute("select pg_relation_size('todolist') / 8192").fetchall()
    assert meter.buffers("todo_stats") < pages / 10


def test_heartbeats_leave_no_trail(meter: Meter) -> None:
    """Every update of a worker's row stays on its page and out of the index (HOT)."""
    for _ in range(200):
        meter.call("heartbeat_worker", p_worker_id=meter.worker, p_lease_seconds=30)
        meter.call("touch_probe", p_worker_id=meter.worker)
    meter.connection.execute("select pg_stat_force_next_flush()")
    rows = meter.connection.execute(
        "select relname, n_tup_upd - n_tup_hot_upd, pg_relation_size(relid) / 8192 from pg_stat_user_tables"
        " where relname in ('workers', 'worker_mailbox') order by 1"
    ).fetchall()
    assert rows == [("worker_mailbox", 0, 1), ("workers", 0, 1)]


def test_a_fair_sweep_reads_a_share_of_each_owner(meter: Meter) -> None:
    """Nothing grows with one owner's backlog, nor with what is scheduled for later."""
    sweep = {
        "p_worker_id": meter.worker,
        "p_agent_types": ["echo"],
        "p_limit": 200,
        "p_fair_by": "owner_id",
    }
    owner = "md5((i %% 10)::text)::uuid"
    meter.fill(2_000, {"owner_id": owner})
    meter.analyze()
    with_few = meter.buffers("sweep_todos", **sweep)
    big = {"owner_id": "md5('0')::uuid"}
    meter.fill(MANY, big)
    meter.fill(MANY, {**big, "available_at": "now() + interval '1 day' + i * interval '1 second'"})
    meter.analyze()
    assert meter.buffers("sweep_todos", **sweep) <= with_few * DEEPER
    swept = meter.scans("sweep_todos", **sweep)
    assert "todolist" not in swept, "a sequential scan"
    assert "todolist_pending_owner_idx" in swept


def test_times_are_taken_from_what_ended_last_not_from_the_table(meter: Meter) -> None:
    def ended(age: str) -> dict[str, str]:
        at = f"now() - {age} - i * interval '1 second'"
        return {"agent_status": "'completed'", "started_at": at, "completed_at": at}

    meter.fill(1_000, ended("interval '0'"))
    meter.analyze()
    alone = meter.buffers("todo_timings")
    meter.fill(MANY, ended("interval '1 day'"))
    # Failed long ago, and created last.
    meter.fill(MANY, {**ended("interval '1 day'"), "agent_status": "'failed'"})
    meter.fill(MANY)
    meter.analyze()
    assert meter.buffers("todo_timings") <= alone * DEEPER
    assert "todolist" not in meter.scans("todo_timings"), "a sequential scan"
