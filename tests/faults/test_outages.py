"""The API, the network and the database go away and come back; nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import TaskState

from reactive_worker import streams
from reactive_worker.models import PushState
from reactive_worker.testing.fragile import FragileSupabase
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.faults.conftest import LITERAL, completed, impatient, proxy_to, through
from tests.support import broken_logs, count, insert, query, runs_more_than_once

QUICK = {"polling_interval": 1.0, "sweep_interval": 3600.0, "probe_interval": 1.0, "concurrency": 20}


class Counting(Echo):
    """The echo, and how often it was asked for each prompt."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        super().__init__(lambda context: self.ran.update([context.get_user_input()]))

    def each_once(self, prompts: Sequence[str]) -> bool:
        return self.ran == Counter(prompts)


async def lease_over(db: str) -> bool:
    rows = await query(db, "select count(*) as n from workers where lease_until > now()")
    return int(rows[0]["n"]) == 0


async def outage(db: str, seconds: float) -> None:
    """Wait as long as an outage shall last: until every lease has run out, or literally."""
    began = time.monotonic()
    await eventually(lambda: lease_over(db), timeout=30)
    if LITERAL:
        await eventually(lambda: time.monotonic() - began >= seconds, timeout=seconds + 10, interval=1)


@pytest.mark.timeout(300)
async def test_postgres_crashes_three_times_in_2000_tasks(tmp_path: Path) -> None:
    """Stopped in immediate mode and started again, under two workers that know nothing of it."""
    echo = Counting()
    prompts = [f"t {n}" for n in range(2000)]
    with FragileSupabase(tmp_path / "data") as supabase:
        async with (
            running_worker(supabase, echo, settings=QUICK) as first,
            running_worker(supabase, echo, settings=QUICK) as second,
        ):
            for worker in (first, second):
                impatient(worker)
            await insert(supabase.db_url, prompts, input_data={"sleep": 0.02})
            for crash in range(1, 4):
                await eventually(lambda crash=crash: completed(supabase.db_url, crash * 400), timeout=60)
                assert await count(supabase.db_url, "completed") < 2000, "crashed too late to show anything"
                await asyncio.to_thread(supabase.crash_database)
                await asyncio.to_thread(supabase.start_database)
            await eventually(lambda: completed(supabase.db_url, 2000), timeout=120)
            for worker in (first, second):
                await eventually(lambda worker=worker: worker.health.state is PushState.HEALTHY, timeout=90)
        assert await broken_logs(supabase.db_url) == []
        # A claim whose answer went down with the database is handed back: claimed twice, yet run once.
        assert echo.each_once(prompts)
        assert await query(supabase.db_url, "select id from todolist where failures > 0") == []


@pytest.mark.timeout(180)
async def test_the_gateway_gone_for_half_a_minute(tmp_path: Path) -> None:
    """Connections are refused, for longer than the lease: two workers keep what they run, and rob nobody."""
    echo = Counting()
    prompts = [f"t {n}" for n in range(300)]
    with FragileSupabase(tmp_path / "data") as supabase:
        async with (
            running_worker(supabase, echo, settings=QUICK) as first,
            running_worker(supabase, echo, settings=QUICK) as second,
        ):
            for worker in (first, second):
                impatient(worker)
            db = supabase.db_url
            await insert(db, prompts, input_data={"sleep": 0.3})
            await eventually(lambda: completed(db, 40))
            await asyncio.to_thread(supabase.stop_api)
            await outage(db, 30)
            assert not await completed(db, 300)
            await asyncio.to_thread(supabase.start_api)
            await eventually(lambda: completed(db, 300), timeout=60)
            for worker in (first, second):
                await eventually(lambda worker=worker: worker.health.state is PushState.HEALTHY, timeout=90)
        assert await broken_logs(db) == []
        assert echo.each_once(prompts)
        assert await query(db, "select id from todolist where failures > 0") == []


@pytest.mark.parametrize("mode", ["cut", "swallow"])
async def test_a_network_that_cuts_or_swallows_loses_nothing(local_supabase: Any, mode: Any) -> None:
    """The lease (5 s) ends during the outage; nobody else is there, so the worker renews it and goes on."""
    db = local_supabase.db_url
    echo = Counting()
    prompts = [f"t {n}" for n in range(200)]
    async with (
        proxy_to(local_supabase) as proxy,
        running_worker(through(local_supabase, proxy), echo, settings=QUICK) as worker,
    ):
        impatient(worker)
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        await insert(db, prompts, input_data={"sleep": 0.05})
        await eventually(lambda: completed(db, 20))
        proxy.mode = mode
        await outage(db, 60)
        if mode == "swallow" and not LITERAL:
            # Requests that were swallowed hang until their time-out (30 s): this ends them now.
            proxy.mode = "cut"
        proxy.mode = "pass"
        await eventually(lambda: completed(db, 200), timeout=90)
        await eventually(lambda: worker.health.state is PushState.HEALTHY, timeout=90)
    assert await broken_logs(db) == []
    # A claim whose answer was swallowed is handed back: claimed twice, yet run once.
    assert echo.each_once(prompts)
    assert await query(db, "select id from todolist where failures > 0") == []


async def test_two_workers_after_an_outage_do_not_rob_each_other(local_supabase: Any) -> None:
    db = local_supabase.db_url
    settings = {**QUICK, "concurrency": 10}
    async with (
        running_worker(local_supabase, Echo(), settings=settings),
        running_worker(local_supabase, Echo(), settings=settings),
    ):
        await insert(db, [f"t {n}" for n in range(100)], input_data={"sleep": 0.3})
        await eventually(lambda: completed(db, 20))
        local_supabase.faults.rest_status = 503
        await outage(db, 10)
        local_supabase.faults.rest_status = None
        await eventually(lambda: completed(db, 100), timeout=60)
    assert await broken_logs(db) == []
    assert await runs_more_than_once(db) == []


class Talker(AgentExecutor):
    """Says as much as it can."""

    def __init__(self, events: int) -> None:
        self.said = 0
        self._events = events

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        for n in range(self._events):
            await updater.update_status(TaskState.TASK_STATE_WORKING, new_text_message(f"{n} " + "x" * 500))
            self.said += 1
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


async def test_who_talks_faster_than_the_database_listens_waits(
    local_supabase: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage costs the memory of the buffer and no more, however much there is to say."""
    db = local_supabase.db_url
    room = 500
    monkeypatch.setattr(
        "reactive_worker.worker.storing.streams.sink", functools.partial(streams.sink, capacity=room)
    )
    caplog.set_level(logging.WARNING, logger="reactive_worker")
    talker = Talker(3000)
    async with running_worker(local_supabase, talker, settings=QUICK):
        local_supabase.faults.rest_status = None
        (id,) = await insert(db, ["talk"])
        await eventually(lambda: talker.said > 0)
        local_supabase.faults.rest_status = 503
        await eventually(lambda: "executors wait" in caplog.text)
        before = await stored(db, id)
        said = talker.said
        await outage(db, 60)
        # What is in one batch under way, and what was stored before, is not waiting.
        assert talker.said == said <= before + room + 250
        assert await stored(db, id) == before
        local_supabase.faults.rest_status = None
        await eventually(lambda: completed(db, 1), timeout=60)
    assert await broken_logs(db) == []
    texts = await query(
        db,
        "select message from events where todolist_id = %s and event_type = 'task_progress' order by seq",
        id,
    )
    assert [int(row["message"].split()[0]) for row in texts] == list(range(3000))


async def stored(db: str, id: str) -> int:
    (row,) = await query(db, "select count(*) as n from events where todolist_id = %s", id)
    return int(row["n"])
