"""Any calls by several workers and people in any order: the tables always hold what a small model holds.

Hypothesis chooses the calls and shrinks what fails. The clock is set, not read, so leases and backoffs run
out exactly when a step says so.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql
from psycopg.rows import dict_row

from reactive_worker.testing.database import Database
from tests.integration.sql.calling import LAST_EVENT, TERMINAL, call_statement, event, result
from tests.integration.sql.model import ENDED, HELD, LEASE, Model, Task

WORKERS = [str(uuid.UUID(int=n)) for n in (1, 2, 3)]
ANSWER = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "go on"}]}

#: Second zero of the model.
START = "2030-01-01T00:00:00+00:00"

#: Columns of `TABLES` that the model has, too.
COMPARED = ("status", "attempt", "failures", "worker", "cancel", "log")

#: All there is to know, in one row.
TABLES = """
select
  (select jsonb_object_agg(t.id, jsonb_build_object(
     'status', t.agent_status, 'attempt', t.attempt, 'failures', t.failures, 'worker', t.worker_id,
     'cancel', t.cancel_requested_at is not null, 'ended', t.completed_at is not null,
     'available_at', extract(epoch from t.available_at - %s), 'log', e.log, 'numbers', e.numbers))
   from todolist t
   cross join lateral (
     select coalesce(jsonb_agg(e.event_type order by e.seq), '[]') as log,
       coalesce(jsonb_agg(e.seq order by e.seq), '[]') as numbers
     from events e where e.todolist_id = t.id) e) as todolist,
  (select coalesce(jsonb_object_agg(
     s.todolist_id, jsonb_build_array(s.lost_with, s.reserved_by, s.company)), '{}')
   from reactive_worker_private.suspects s) as suspects,
  array(select id::text from workers) as workers,
  array(select worker_id::text from worker_mailbox) as mailboxes
"""

#: What people do to a task in this status.
FITTING = {HELD: "cancel", "input_required": "answer", "failed": "retry", "cancelled": "retry"}

workers = st.sampled_from(WORKERS)


def task_id(number: int) -> str:
    """Scattered, so that the order of ids is not the order of submission."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


class Queue(RuleBasedStateMachine):
    """The SQL functions on one side, the model on the other; every rule does the same to both."""

    connection: ClassVar[psycopg.Connection[dict[str, Any]]]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.ids: list[str] = []
        #: Every claim ever made: (task, worker, attempt), whether still held or not.
        self.runs: list[tuple[str, str, int]] = []
        #: Results that ended a run, and who sent them.
        self.sent: list[tuple[str, dict[str, Any]]] = []
        #: Task of each idempotency key.
        self.keys: dict[str, str] = {}

    @initialize()
    def begin(self) -> None:
        self.connection.execute("delete from todolist")
        self.connection.execute("delete from workers")
        for worker in WORKERS:
            self.register(worker)
        for max_failures in (2, 3, 5):
            self.submit(0, 0, max_failures, None)

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function at the model's time; returns its value, or the SQLSTATE it was refused with."""
        statement, values = call_statement(function, arguments)
        # One statement is one transaction, in which now() stands still: the offset gives the model's time.
        clock = sql.SQL(
            "with clock as materialized (select set_config('app.settings.reactive_worker_clock_offset',"
            " extract(epoch from %s::timestamptz + make_interval(secs => %s) - now())::text, true))"
            " {} from clock"
        )
        try:
            row = self.connection.execute(
                clock.format(statement), [START, self.model.now, *values]
            ).fetchone()
        except psycopg.Error as error:
            return error.sqlstate
        assert row is not None
        return next(iter(row.values()))

    # -- workers -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @rule(survivor=workers, pauses=st.sampled_from([(6.0, 5.0), (6.0, 5.0), (1.0, 1.0), (11.0, 3.0)]))
    def only_one_keeps_its_lease(self, survivor: str, pauses: tuple[float, float]) -> None:
        self.register(survivor)
        for seconds in pauses:
            self.model.now += seconds
            self.heartbeat(survivor)
        self.sweep(survivor, 100)

    @rule(worker=workers, duty=st.sampled_from(["heartbeat", "register", "register", "unregister", "delete"]))
    def worker_comes_or_goes(self, worker: str, duty: str) -> None:
        getattr(self, duty)(worker)

    def register(self, worker: str) -> None:
        self.model.register(worker)
        self.call(
            "register_worker",
            p_worker_id=worker,
            p_name="w",
            p_agent_types=["echo"],
            p_concurrency=1,
            p_lease_seconds=LEASE,
        )

    def heartbeat(self, worker: str) -> None:
        tasks = self.model.tasks.items()
        held = {id: task.attempt for id, task in tasks if self.model.holds(id, worker, task.attempt)}
        stale = {id: n for id, owner, n in self.runs if owner == worker and held.get(id) != n}
        in_flight = [{"id": id, "attempt": n} for runs in (held, stale) for id, n in runs.items()]
        answer = self.call(
            "heartbeat_worker", p_worker_id=worker, p_lease_seconds=LEASE, p_in_flight=in_flight
        )
        assert answer["known"] is self.model.heartbeat(worker)
        assert {run["id"] for run in answer["cancel"]} == {id for id in held if self.model.tasks[id].cancel}
        assert {run["id"]: run["attempt"] for run in answer["lost"]} == stale
        assert answer["stray"] == []

    def unregister(self, worker: str) -> None:
        answer = self.call("unregister_worker", p_worker_id=worker)
        assert answer == {"released": self.model.unregister(worker), "busy": [], "refused": []}

    def delete(self, worker: str) -> None:
        """As somebody does it by hand in Studio."""
        self.connection.execute("delete from workers where id = %s", [worker])
        self.model.workers.pop(worker, None)

    @rule(worker=workers, limit=st.sampled_from([1, 3, 100]))
    def sweep(self, worker: str, limit: int) -> None:
        answer = self.call("reclaim_todos", p_worker_id=worker)
        assert answer["reclaimed"] == self.model.sweep(worker)
        if worker not in self.model.workers:
            return
        answer = self.call("sweep_todos", p_worker_id=worker, p_agent_types=["echo"], p_limit=limit)
        wanted = self.model.candidates()
        assert [row["id"] for row in answer["candidates"]] == wanted[:limit]
        assert answer["full"] is (len(wanted) >= limit)
        later = [task.available_at for task in self.model.tasks.values() if task.status == "pending"]
        later = [moment for moment in later if moment > self.model.now]
        assert (answer["next_due_at"] is None) is not later

    # -- runs --------------------------------------------------------------------------------------

    @rule(worker=workers, data=st.data(), want=st.integers(1, 3))
    def claim(self, worker: str, data: st.DataObject, want: int) -> None:
        self.claim_of(worker, data.draw(st.permutations(self.ids)), want)

    @rule(
        worker=workers,
        ends=st.lists(st.sampled_from([*LAST_EVENT, "release", "hold", "hold"]), min_size=1, max_size=3),
    )
    def work(self, worker: str, ends: list[str]) -> None:
        """What a worker does all day: take the best, and end some of it."""
        if not self.model.lives(worker):
            self.register(worker)
        before = len(self.runs)
        self.claim_of(worker, self.model.candidates(), len(ends))
        for run, kind in zip(self.runs[before:], ends, strict=False):
            if kind == "release":
                self.release(*run)
            elif kind != "hold":
                self.finish(*run, kind, 0, counts=True)

    def claim_of(self, worker: str, offered: list[str], want: int) -> None:
        answer = self.call("claim_todos", p_worker_id=worker, p_ids=offered, p_want=want)
        if not self.model.lives(worker):
            assert answer == "RW001"
            return
        claimed = self.model.claim(worker, offered, want)
        assert [row["id"] for row in answer["claimed"]] == claimed
        assert set(answer["gone"]) == self.model.gone(offered, claimed)
        for row in answer["claimed"]:
            task = self.model.tasks[row["id"]]
            assert (row["attempt"], row["seq"]) == (task.attempt, len(task.log))
            self.runs.append((row["id"], worker, task.attempt))

    def draw_run(self, data: st.DataObject) -> tuple[str, str, int]:
        """A run that holds its task; or one that held it before; or either in another worker's name."""
        running = [run for run in self.runs if self.model.tasks[run[0]].status == HELD]
        held = [run for run in running if self.model.holds(*run)]
        stale = [run for run in running if not self.model.holds(*run)]
        which = data.draw(st.sampled_from(["held", "held", "stale", "forged"]))
        among = held if which == "held" else stale if which == "stale" else running
        id, worker, attempt = data.draw(st.sampled_from(among or self.runs))
        return id, data.draw(workers) if which == "forged" else worker, attempt

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), count=st.integers(1, 3))
    def append(self, data: st.DataObject, count: int) -> None:
        id, worker, attempt = self.draw_run(data)
        log = self.model.tasks[id].log
        held = self.model.holds(id, worker, attempt)
        # A fenced-out run numbers as well as it can: it does not know what came after it.
        items = [{"todolist_id": id, "attempt": attempt, **event(len(log) + 1 + n)} for n in range(count)]
        lost = [] if held else [{"id": id, "attempt": attempt}]
        expected = {"stored": count if held else 0, "lost": lost, "busy": [], "refused": []}
        assert self.call("append_events", p_worker_id=worker, p_events=items) == expected
        if held:
            log.extend(["task_progress"] * count)
            again = self.call("append_events", p_worker_id=worker, p_events=items)
            assert again == expected | {"stored": 0}

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        kind=st.sampled_from([*LAST_EVENT, "release", "release"]),
        wait=st.sampled_from([0, 2, 20]),
    )
    def end(self, data: st.DataObject, kind: str, wait: float) -> None:
        run = self.draw_run(data)
        if kind == "release":
            self.release(*run)
        else:
            self.finish(*run, kind, wait, counts=wait != 2)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), wait=st.sampled_from([0, 2]))
    def fail(self, data: st.DataObject, wait: float) -> None:
        self.finish(*self.draw_run(data), "retry", wait, counts=True)

    def finish(self, id: str, worker: str, attempt: int, kind: str, wait: float, *, counts: bool) -> None:
        task = self.model.tasks[id]
        item = result(
            {"id": id, "attempt": attempt, "seq": len(task.log)},
            kind,
            retry_after_seconds=wait,
            counts_as_failure=counts,
        )
        expected = "lost"
        if self.model.holds(id, worker, attempt):
            self.model.finish(id, kind, wait, counts)
            self.sent.append((worker, item))
            expected = "finished"
        answer = self.call("finish_todos", p_worker_id=worker, p_results=[item])
        wanted = {"todolist_id": id, "attempt": attempt, "result": expected, "agent_status": task.status}
        assert answer["results"] == [wanted]

    def release(self, id: str, worker: str, attempt: int) -> None:
        held = self.model.holds(id, worker, attempt)
        answer = self.call("release_todos", p_worker_id=worker, p_items=[{"id": id, "attempt": attempt}])
        if held:
            self.model.release(id)
        run = {"id": id, "attempt": attempt}
        released = [{**run, "agent_status": self.model.tasks[id].status}] if held else []
        lost = [] if held else [run]
        assert answer == {"released": released, "lost": lost, "busy": [], "refused": []}

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        worker, item = data.draw(st.sampled_from(self.sent))
        [answer] = self.call("finish_todos", p_worker_id=worker, p_results=[item])["results"]
        assert answer["result"] == "repeated"

    # -- people ------------------------------------------------------------------------------------

    @precondition(lambda self: sum(task.status not in ENDED for task in self.model.tasks.values()) < 3)
    @rule(
        delay=st.sampled_from([0, 5]),
        priority=st.integers(-1, 1),
        max_failures=st.integers(1, 3),
        key=st.sampled_from([None, "a", "b"]),
    )
    def submit(self, delay: float, priority: int, max_failures: int, key: str | None) -> None:
        row = {"agent_type": "echo", "prompt": "x", "delay_seconds": delay, "priority": priority}
        # Ids of our own: Hypothesis must find the same order when it repeats an example.
        row |= {"max_failures": max_failures, "idempotency_key": key, "id": task_id(len(self.ids))}
        [answer] = self.call("submit_todos", p_rows=[row])
        id = answer["id"]
        known = self.keys.get(key) if key else None
        assert (answer["created"], id) == ((False, known) if known else (True, id))
        if known is None:
            if key is not None:
                self.keys[key] = id
            self.ids.append(id)
            self.model.tasks[id] = Task(priority, max_failures, self.model.now + delay)

    @rule(data=st.data(), what=st.sampled_from(["cancel", "retry", "answer"]))
    def person(self, data: st.DataObject, what: str) -> None:
        self.do(what, data.draw(st.sampled_from(self.ids)))

    @precondition(lambda self: any(task.status in FITTING for task in self.model.tasks.values()))
    @rule(data=st.data())
    def person_who_knows(self, data: st.DataObject) -> None:
        """Does to a task what its status allows."""
        fitting = {id: task.status for id, task in self.model.tasks.items() if task.status in FITTING}
        # First one of the statuses there are: the failed ones would otherwise crowd out those that wait.
        status = data.draw(st.sampled_from(sorted(set(fitting.values()))))
        self.do(FITTING[status], data.draw(st.sampled_from([id for id in fitting if fitting[id] == status])))

    def do(self, what: str, id: str) -> None:
        arguments = {"p_message": ANSWER} if what == "answer" else {}
        answer = self.call(f"{what}_todo", p_id=id, **arguments)
        if getattr(self.model, what)(id):
            assert answer["agent_status"] == self.model.tasks[id].status
        else:
            assert answer == "PT409"

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def tables_hold_what_the_model_holds(self) -> None:
        found = self.connection.execute(TABLES, [START]).fetchone()
        assert found is not None
        assert set(found["todolist"] or ()) == set(self.model.tasks)
        for id, row in (found["todolist"] or {}).items():
            task = self.model.tasks[id]
            expected = (task.status, task.attempt, task.failures, task.worker, task.cancel, task.log)
            assert tuple(row[name] for name in COMPARED) == expected
            assert row["available_at"] == pytest.approx(task.available_at)
            assert row["numbers"] == list(range(1, len(task.log) + 1))
            # One end for each time the task ended: it ends again only after somebody asked for a retry.
            ends = [kind for kind in row["log"] if kind in TERMINAL]
            assert len(ends) == row["log"].count("task_retried") + (task.status in ENDED)
            assert row["ended"] is (task.status in ENDED)
        suspects = {
            id: [task.suspect, task.reserved, task.company]
            for id, task in self.model.tasks.items()
            if task.suspect
        }
        assert found["suspects"] == suspects
        assert set(found["workers"]) == set(found["mailboxes"]) == set(self.model.workers)


@pytest.fixture
def connection(database: Database) -> Generator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.dsn, autocommit=True, row_factory=dict_row) as connection:
        yield connection


# A failure is made small before it is shown, which takes minutes; cut off, nobody would see it.
@pytest.mark.timeout(900)
def test_any_order_of_calls(connection: psycopg.Connection[dict[str, Any]]) -> None:
    class Connected(Queue):
        pass

    Connected.connection = connection
    run_state_machine_as_test(
        Connected,
        settings=settings(
            max_examples=130,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )
