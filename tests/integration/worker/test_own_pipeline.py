"""A worker from its parts, a second sink, `async with`, and what a session does when a part of it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as ops

from reactive_worker import ReactiveWorker, Session, open_session, streams
from reactive_worker.errors import UnreachableError, WorkerStoppedError
from reactive_worker.models import PushState
from reactive_worker.testing.workers import eventually, running_worker, worker_settings
from reactive_worker.worker.telemetry import SubscriberRaised, TelemetryEvent, WorkerLeft
from tests.executors import Echo
from tests.support import count, insert, query


def composed(session: Session, executor: Any, concurrency: int = 4) -> Observable[Any]:
    backpressure = session.backpressure
    return reactivex.merge(session.pushed, session.sweeps()).pipe(
        streams.dedupe(forget=backpressure.released),
        streams.prioritise(backpressure),
        streams.dispatch(
            session.claim,
            session.run(executor),
            backpressure,
            concurrency=concurrency,
            on_error=session.failed,
        ),
        session.store,
    )


async def test_a_worker_from_its_parts(local_supabase: Any) -> None:
    """Push, pause from outside, drain and leaving come with the session."""
    db = local_supabase.db_url
    told: list[TelemetryEvent] = []
    async with open_session(worker_settings(local_supabase), ["test"]) as session:
        session.telemetry.attach(told.append)
        serving = asyncio.create_task(session.serve(composed(session, Echo())))
        await eventually(lambda: session.health.state is PushState.HEALTHY)
        await insert(db, [f"task {n}" for n in range(20)])
        await eventually(lambda: all_completed(db, 20))
        await query(db, "select set_worker_state(%s::uuid, 'paused')", session.identity.id)
        await eventually(lambda: session.backpressure.paused.value)
        await insert(db, ["waits"])
        await query(db, "select set_worker_state(%s::uuid, 'running')", session.identity.id)
        await eventually(lambda: all_completed(db, 21))
        await query(db, "select set_worker_state(%s::uuid, 'draining')", session.identity.id)
        await serving
    assert told[-1] == WorkerLeft(session.identity.name)
    assert await query(db, "select 1 from workers") == []


async def test_a_stream_that_ends_ends_the_worker_and_hands_nothing_out(local_supabase: Any) -> None:
    db = local_supabase.db_url
    await insert(db, ["a", "b", "c"])
    async with open_session(worker_settings(local_supabase), ["test"]) as session:
        work = composed(session, Echo(), concurrency=1).pipe(ops.take(1))
        async with asyncio.timeout(60):
            await session.serve(work)
    assert await query(db, "select 1 from todolist where agent_status = 'in_progress'") == []
    assert await query(db, "select 1 from workers") == []


async def test_a_session_that_cannot_start_leaves_nothing_behind(
    local_supabase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, *arguments: Any, **named: Any) -> Any:
        raise UnreachableError("away")

    monkeypatch.setattr("reactive_worker.store.store.TodoStore.register", refuse)
    tasks = asyncio.all_tasks()
    with pytest.raises(UnreachableError, match="away"):
        async with open_session(worker_settings(local_supabase), ["test"]):
            raise AssertionError("it never opens")
    assert asyncio.all_tasks() == tasks


async def test_a_second_sink_sees_outcomes_and_harms_nobody(local_supabase: Any) -> None:
    db = local_supabase.db_url
    heard, sunk, told = list[str](), list[str](), list[TelemetryEvent]()
    worker = ReactiveWorker(
        Echo(), agent_type="test", settings=worker_settings(local_supabase), handle_signals=False
    )

    def raising(event: Any) -> None:
        raise RuntimeError("no such channel")

    def ends(event: Any) -> None:
        if event.outcome is not None:
            sunk.append(event.outcome.kind)
            raise RuntimeError("the chat is away")

    worker.events.subscribe(raising)
    worker.events.subscribe(lambda event: heard.append(event.event_type))
    worker.add_sink("chat", ends)
    worker.telemetry.attach(told.append)
    async with worker:
        await insert(db, ["a", "b"])
        await eventually(lambda: all_completed(db, 2))
    assert sunk == ["completed", "completed"]
    assert heard.count("task_completed") == 2
    raised = {event.where for event in told if isinstance(event, SubscriberRaised)}
    assert raised == {"worker.events", "sink 'chat'"}
    assert await query(db, "select 1 from workers") == []


async def test_without_a_heartbeat_nothing_runs_on(
    local_supabase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody renews the lease: a drain of 30 s would run what others run as well by then."""
    db = local_supabase.db_url
    settings = worker_settings(local_supabase, drain_timeout=3600.0, cancel_grace=3600.0)
    worker = ReactiveWorker(Echo(), agent_type="test", settings=settings, handle_signals=False)
    await insert(db, ["a b c"], input_data={"sleep": 3600})
    running = asyncio.create_task(worker.run())
    await eventually(lambda: worker.running)

    def die(*arguments: Any) -> float:
        raise RuntimeError("out of threads")

    monkeypatch.setattr("reactive_worker.store.heartbeat.Heartbeat.turn", die)
    with pytest.raises(WorkerStoppedError, match="the heartbeat"):
        async with asyncio.timeout(120):
            await running
    rows = await query(db, "select agent_status, failures from todolist")
    assert rows == [{"agent_status": "pending", "failures": 0}]


async def test_a_running_row_set_back_by_hand_runs_once_at_a_time(local_supabase: Any) -> None:
    db = local_supabase.db_url
    echo = Echo()
    async with running_worker(local_supabase, echo, settings={"polling_interval": 0.5}) as worker:
        (id,) = await insert(db, ["a b c"], input_data={"sleep": 3600})
        await eventually(lambda: worker.running)
        await query(
            db,
            "update todolist set agent_status = 'pending', worker_id = null,"
            " input_data = '{}' where id = %s returning 1",
            id,
        )
        await eventually(lambda: all_completed(db, 1))
        assert not [todo for todo in worker.running if todo.attempt == 1]
    (row,) = await query(db, "select attempt, agent_status from todolist")
    assert row == {"attempt": 2, "agent_status": "completed"}


async def all_completed(db: str, wanted: int) -> bool:
    return await count(db, "completed") == wanted
