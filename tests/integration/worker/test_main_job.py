"""The main job on real parts: a row goes in, Realtime or a sweep finds it, an executor runs it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import reactivex.operators as ops
from supabase import acreate_client

from reactive_worker import streams
from reactive_worker.models import PushState, TodoEvent
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import broken_logs, count, deafen, events_of, insert, kinds, query, runs_more_than_once

#: What is proven for each way of push by itself; everything else runs as `auto` chooses.
WAYS = ["broadcast", "changes"]


async def test_a_row_becomes_a_result_with_its_whole_log(local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo()):
        (id,) = await insert(local_supabase.db_url, ["hello world"])
        await eventually(lambda: count(local_supabase.db_url, "completed"))
    (row,) = await query(local_supabase.db_url, "select * from todolist where id = %s", id)
    assert row["agent_output"]["text"] == "hello world"
    assert row["task_state"] == "TASK_STATE_COMPLETED"
    assert row["attempt"] == 1
    assert row["completed_at"] is not None
    log = await kinds(local_supabase.db_url, id)
    assert log[0] == "task_started"
    assert log[-1] == "task_completed"
    assert "task_artifact" in log
    assert await broken_logs(local_supabase.db_url) == []


async def test_rows_waiting_before_the_start_are_found_by_the_first_sweep(local_supabase: Any) -> None:
    await insert(local_supabase.db_url, [f"early {n}" for n in range(50)])
    async with running_worker(local_supabase, Echo(), settings={"polling_interval": 3600.0}):
        await eventually(lambda: _all_done(local_supabase, 50))


@pytest.mark.parametrize("push", WAYS)
async def test_push_alone_starts_every_row(local_supabase: Any, push: str) -> None:
    """The sweep is an hour away: what starts, started through Realtime. Rows by supabase-py."""
    settings = {
        "polling_interval": 3600.0,
        "sweep_interval": 3600.0,
        "probe_interval": 3600.0,
        "push": push,
    }
    client = await acreate_client(local_supabase.api_url, local_supabase.service_role_key)
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        assert worker.health.mode == push
        for n in range(200):
            await client.table("todolist").insert({"agent_type": "test", "prompt": f"row {n}"}).execute()
        await client.postgrest.aclose()
        try:
            await eventually(lambda: _all_done(local_supabase, 200), timeout=60)
        except AssertionError as error:
            raise AssertionError(f"{error}: {await _left(local_supabase)}") from error
    assert await runs_more_than_once(local_supabase.db_url) == []
    assert await broken_logs(local_supabase.db_url) == []


@pytest.mark.parametrize("push", WAYS)
async def test_while_realtime_is_deaf_the_sweep_finds_every_row_and_push_resumes(
    local_supabase: Any, push: str
) -> None:
    settings = {"polling_interval": 1.0, "sweep_interval": 3600.0, "probe_interval": 0.5, "push": push}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        worker._session.push.probe.echo_timeout = 0.5  # type: ignore[union-attr] - a short patience for the test
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        deafen(local_supabase.faults, True)
        await eventually(lambda: worker.health.state is not PushState.HEALTHY)
        for n in range(3):
            await insert(local_supabase.db_url, [f"deaf {n}"])
            await eventually(lambda n=n: _all_done(local_supabase, n + 1), timeout=10)
        late = await query(
            local_supabase.db_url,
            "select id from todolist where started_at - created_at > interval '2 seconds'",
        )
        assert late == [], "a row waited longer than the polling interval and a second"
        deafen(local_supabase.faults, False)
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        # The next periodic sweep is an hour away now.
        await insert(local_supabase.db_url, ["heard again"])
        await eventually(lambda: _all_done(local_supabase, 4))


async def test_a_backlog_runs_by_priority_then_by_age(local_supabase: Any) -> None:
    seen: list[str] = []
    prompts = {priority: [f"p{priority} n{n}" for n in range(12)] for priority in (0, 5, -3, 9)}
    for priority, texts in prompts.items():
        for text in texts:
            await insert(local_supabase.db_url, [text], priority=priority)
    echo = Echo(lambda context: seen.append(context.get_user_input()))
    async with running_worker(local_supabase, echo, settings={"concurrency": 1}):
        await eventually(lambda: _all_done(local_supabase, 48))
    assert seen == prompts[9] + prompts[5] + prompts[0] + prompts[-3]


async def test_a_key_of_ones_own_changes_the_order(local_supabase: Any) -> None:
    seen: list[str] = []
    prompts = [f"row {n:02}" for n in range(10)]
    for text in prompts:
        await insert(local_supabase.db_url, [text])
    echo = Echo(lambda context: seen.append(context.get_user_input()))
    youngest_first = lambda candidate: -candidate.created_at.timestamp()  # noqa: E731
    async with running_worker(local_supabase, echo, settings={"concurrency": 1}, priority_key=youngest_first):
        await eventually(lambda: _all_done(local_supabase, 10))
    assert seen == prompts[::-1]


async def test_tenants_take_turns_however_long_the_backlog_of_one(local_supabase: Any) -> None:
    """One tenant with 10,000 tasks and nine with 10 each: the nine finish first, and no slot is idle."""
    tenant = "insert into todolist (agent_type, prompt, owner_id) select 'test', %s, md5(%s)::uuid"
    many = f"{tenant} from generate_series(1, %s)"
    await query(local_supabase.db_url, many, "big", "big", 10_000)
    for n in range(9):
        await query(local_supabase.db_url, many, f"small {n}", f"small {n}", 10)
    seen: list[str] = []
    echo = Echo(lambda context: seen.append(context.get_user_input()))
    settings = {"concurrency": 20, "polling_interval": 3600.0, "sweep_interval": 3600.0}
    async with running_worker(
        local_supabase, echo, settings=settings, order=streams.fair_by("owner_id")
    ) as worker:
        # The next periodic sweep is an hour away: the stream itself asks for more when it runs low.
        await eventually(lambda: len(seen) > 900, timeout=60)
        worker.stop()
    last = max(place for place, prompt in enumerate(seen) if prompt != "big")
    assert sum(prompt != "big" for prompt in seen) == 90
    # Ten tenants take turns: a hundred places, and what one claim took at a time.
    assert last < 100 + 2 * 20


async def test_both_hooks_and_worker_events_see_the_streams(local_supabase: Any) -> None:
    heard: list[TodoEvent] = []

    def only_short(candidates: Any) -> Any:
        return candidates.pipe(ops.filter(lambda candidate: candidate.priority < 10))

    def stamped(events: Any) -> Any:
        from dataclasses import replace

        return events.pipe(ops.map(lambda event: replace(event, message=f"seen: {event.message}")))

    async with running_worker(local_supabase, Echo(), candidates=only_short, events=stamped) as worker:
        worker.events.subscribe(heard.append)
        await insert(local_supabase.db_url, ["held back"], priority=10)
        (id,) = await insert(local_supabase.db_url, ["runs"])
        await eventually(lambda: _all_done(local_supabase, 1))
        assert await count(local_supabase.db_url, "pending") == 1
    log = await events_of(local_supabase.db_url, id)
    assert [row["message"] for row in log if row["event_type"] == "task_artifact"] != []
    assert all(row["message"].startswith("seen: ") for row in log if row["event_type"] == "task_artifact")
    assert heard[-1].event_type == "task_completed"
    assert await broken_logs(local_supabase.db_url) == []


async def test_what_raises_costs_one_row_and_one_error(
    local_supabase: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A raising operator, a raising executor and an unreadable push are each one error; all goes on."""

    def touchy(candidates: Any) -> Any:
        def look(candidate: Any) -> Any:
            if candidate.priority == 13:
                raise RuntimeError("I do not like 13")
            return candidate

        return candidates.pipe(ops.map(look))

    caplog.set_level(logging.WARNING, logger="reactive_worker")
    settings = {"polling_interval": 3600.0, "sweep_interval": 3600.0}
    async with running_worker(local_supabase, Echo(), settings=settings, candidates=touchy) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        await insert(local_supabase.db_url, ["unlucky"], priority=13)
        await eventually(lambda: "I do not like 13" in caplog.text)
        assert worker._session is not None
        worker._session.push.rows.on_next({"id": "no uuid", "agent_type": "test"})
        rows = await insert(local_supabase.db_url, ["bad"], input_data={"fail": "on purpose"})
        await query(local_supabase.db_url, "update todolist set max_failures = 1 where id = %s", rows[0])
        await insert(local_supabase.db_url, ["good"])
        await eventually(lambda: _all_done(local_supabase, 1))
        await eventually(lambda: count(local_supabase.db_url, "failed"))
    # It stays pending, so later sweeps offer it again, and the operator may think again.
    assert caplog.text.count("a row told by realtime cannot be read") == 1
    (failed,) = await query(local_supabase.db_url, "select * from todolist where agent_status = 'failed'")
    assert failed["error"]["type"] == "RuntimeError"
    assert failed["error"]["message"] == "on purpose"
    assert "on purpose" in str(failed["agent_output"])
    assert await count(local_supabase.db_url, "pending") == 1


async def test_a_refused_sink_keeps_everything_until_it_works_again(local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo()) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        await insert(local_supabase.db_url, [f"slow {n}" for n in range(5)], input_data={"sleep": 0.5})
        await eventually(lambda: _in_progress(local_supabase, 5))
        local_supabase.faults.rest_status = 503
        await eventually(lambda: not worker.running)
        assert await count(local_supabase.db_url, "completed") == 0
        local_supabase.faults.rest_status = None
        await eventually(lambda: _all_done(local_supabase, 5))
    assert await broken_logs(local_supabase.db_url) == []
    assert await runs_more_than_once(local_supabase.db_url) == []


async def test_concurrency_is_a_limit_overall_and_per_type(local_supabase: Any) -> None:
    running: dict[str, int] = {"a": 0, "b": 0}
    most: dict[str, int] = {"a": 0, "b": 0, "all": 0}

    class Counting(Echo):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        async def execute(self, context: Any, event_queue: Any) -> None:
            running[self.name] += 1
            most[self.name] = max(most[self.name], running[self.name])
            most["all"] = max(most["all"], sum(running.values()))
            try:
                await super().execute(context, event_queue)
            finally:
                running[self.name] -= 1

    await insert(local_supabase.db_url, ["x"] * 30, agent_type="a", input_data={"sleep": 0.02})
    await insert(local_supabase.db_url, ["x"] * 30, agent_type="b", input_data={"sleep": 0.02})
    executors = {"a": Counting("a"), "b": Counting("b")}
    async with running_worker(
        local_supabase, executors=executors, settings={"concurrency": 6}, per_type={"a": 2}
    ):
        await eventually(lambda: _all_done(local_supabase, 60))
    assert most["a"] == 2
    assert most["b"] > 2
    assert most["all"] <= 6


async def _all_done(supabase: Any, wanted: int) -> bool:
    return await count(supabase.db_url, "completed") == wanted


async def _left(supabase: Any) -> list[dict[str, Any]]:
    """What has not been done, with all that tells whether it was never claimed or never ended."""
    return await query(
        supabase.db_url,
        "select t.prompt, t.agent_status, t.attempt, t.created_at, t.available_at, t.updated_at, t.error,"
        " w.info, array(select e.event_type from events e where e.todolist_id = t.id order by e.seq) as log,"
        " clock_timestamp() as now from todolist t, workers w where t.agent_status <> 'completed'",
    )


async def _in_progress(supabase: Any, wanted: int) -> bool:
    return await count(supabase.db_url, "in_progress") == wanted
