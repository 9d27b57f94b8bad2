"""Realtime, the API, the network and the database go away and come back; nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from reactive_worker.models import PushState
from reactive_worker.testing.proxy import FaultyProxy
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import broken_logs, count, insert, query, runs_more_than_once

QUICK = {"polling_interval": 1.0, "sweep_interval": 3600.0, "probe_interval": 1.0, "push": "changes"}


@dataclass(frozen=True)
class Through:
    """A Supabase as seen through a proxy."""

    api_url: str
    service_role_key: str


async def done(supabase: Any, wanted: int) -> bool:
    return await count(supabase.db_url, "completed") >= wanted


def impatient(worker: Any) -> None:
    worker._session._push._sonar._echo_timeout = 1.0


FAULTS = {
    "socket cut": lambda faults: faults.drop_sockets(1006),
    "socket closed 1000": lambda faults: faults.drop_sockets(1000),
    "socket closed 1001": lambda faults: faults.drop_sockets(1001),
    "socket closed 1012": lambda faults: faults.drop_sockets(1012),
    "channel closed": lambda faults: faults.phx_close_all(),
    "channel error": lambda faults: faults.phx_error_all(),
    "system error": lambda faults: faults.system_error_all("Subscription lost"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_after_each_realtime_fault_the_worker_hears_again_by_itself(
    local_supabase: Any, fault: Any
) -> None:
    async with running_worker(local_supabase, Echo(), settings=QUICK) as worker:
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        before = worker.health.since
        fault(local_supabase.faults)
        await insert(local_supabase.db_url, ["meanwhile"])
        await eventually(lambda: done(local_supabase, 1), timeout=10)
        await eventually(
            lambda: worker.health.state is PushState.HEALTHY and worker.health.since > before, timeout=60
        )
    late = "select id from todolist where started_at - created_at > interval '2 seconds'"
    assert await query(local_supabase.db_url, late) == [], "waited longer than polling_interval and a second"


@pytest.mark.parametrize("switch", ["withhold_system_ok", "refuse_joins", "deaf"])
async def test_a_subscription_that_is_none_is_noticed_and_replaced(
    local_supabase: Any, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_worker.store.realtime.READY_TIMEOUT", 1.0)
    monkeypatch.setattr("reactive_worker.store.realtime.JOIN_TIMEOUT", 2)
    faults = local_supabase.faults
    faults.join_refusal_delay = 0.1
    async with running_worker(local_supabase, Echo(), settings=QUICK) as worker:
        impatient(worker)
        await eventually(lambda: worker.health.state is PushState.HEALTHY)
        setattr(faults, switch, "Unauthorized: not now" if switch == "refuse_joins" else True)
        faults.drop_sockets(1006)
        await eventually(lambda: worker.health.state is not PushState.HEALTHY)
        await insert(local_supabase.db_url, ["found by a sweep"])
        await eventually(lambda: done(local_supabase, 1), timeout=10)
        assert worker.health.state is not PushState.HEALTHY
        setattr(faults, switch, None if switch == "refuse_joins" else False)
        await eventually(lambda: worker.health.state is PushState.HEALTHY, timeout=90)
        # The next sweep is an hour away: this one is pushed.
        await insert(local_supabase.db_url, ["pushed"])
        await eventually(lambda: done(local_supabase, 2), timeout=10)


@pytest.mark.parametrize("mode", ["cut", "swallow"])
async def test_a_network_that_cuts_or_swallows_loses_nothing(local_supabase: Any, mode: Any) -> None:
    """The lease (5 s) ends during the outage; nobody else is there, so the worker renews it and goes on."""
    parts = urlsplit(local_supabase.api_url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with FaultyProxy(parts.hostname, parts.port) as proxy:
        ran: list[str] = []
        echo = Echo(lambda context: ran.append(context.get_user_input()))
        through = Through(f"http://127.0.0.1:{proxy.port}", local_supabase.service_role_key)
        async with running_worker(through, echo, settings={**QUICK, "concurrency": 20}) as worker:
            impatient(worker)
            await eventually(lambda: worker.health.state is PushState.HEALTHY)
            await insert(local_supabase.db_url, [f"t {n}" for n in range(200)], input_data={"sleep": 0.05})
            await eventually(lambda: done(local_supabase, 20))
            proxy.mode = mode
            await eventually(lambda: lease_over(local_supabase), timeout=30)
            proxy.mode = "pass"
            if mode == "swallow":
                # Requests that were swallowed hang until their time-out; new connections work at once.
                proxy.mode = "cut"
                proxy.mode = "pass"
            await eventually(lambda: done(local_supabase, 200), timeout=60)
            await eventually(lambda: worker.health.state is PushState.HEALTHY, timeout=60)
    assert await broken_logs(local_supabase.db_url) == []
    # A claim whose answer was swallowed is handed back: claimed twice, yet run once.
    assert sorted(ran) == sorted(f"t {n}" for n in range(200))
    assert await query(local_supabase.db_url, "select id from todolist where failures > 0") == []


async def test_the_api_away_longer_than_the_lease_costs_nothing(local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo(), settings={**QUICK, "concurrency": 20}):
        await insert(local_supabase.db_url, [f"t {n}" for n in range(200)], input_data={"sleep": 0.05})
        await eventually(lambda: done(local_supabase, 20))
        local_supabase.faults.rest_status = 503
        await eventually(lambda: lease_over(local_supabase), timeout=30)
        local_supabase.faults.rest_status = None
        await eventually(lambda: done(local_supabase, 200), timeout=60)
    assert await broken_logs(local_supabase.db_url) == []
    assert await runs_more_than_once(local_supabase.db_url) == []


async def test_two_workers_after_an_outage_do_not_rob_each_other(local_supabase: Any) -> None:
    settings = {**QUICK, "concurrency": 10}
    async with (
        running_worker(local_supabase, Echo(), settings=settings),
        running_worker(local_supabase, Echo(), settings=settings),
    ):
        await insert(local_supabase.db_url, [f"t {n}" for n in range(100)], input_data={"sleep": 0.3})
        await eventually(lambda: done(local_supabase, 20))
        local_supabase.faults.rest_status = 503
        await eventually(lambda: lease_over(local_supabase), timeout=30)
        await asyncio.sleep(0)
        local_supabase.faults.rest_status = None
        await eventually(lambda: done(local_supabase, 100), timeout=60)
    assert await broken_logs(local_supabase.db_url) == []
    assert await runs_more_than_once(local_supabase.db_url) == []


async def lease_over(supabase: Any) -> bool:
    rows = await query(supabase.db_url, "select count(*) as n from workers where lease_until > now()")
    return int(rows[0]["n"]) == 0
