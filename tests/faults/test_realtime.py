"""Whatever happens to Realtime: the worker hears again by itself, and no task waits longer than a poll.

The faults are those that end realtime-py, or leave it deaf, for good: each has its test here. Both ways of
push stand on the same client, so broadcast is tried with some of the faults that are not about one way only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from reactive_worker.backoff import Backoff
from reactive_worker.models import PushState
from reactive_worker.store.push import link as realtime
from reactive_worker.testing.proxy import FaultyProxy
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.faults.conftest import (
    LITERAL,
    completed,
    feeding,
    impatient,
    longest_wait,
    proxy_to,
    through,
)
from tests.support import broken_logs, insert, query

POLLING = 1.0
#: Sweeps are an hour apart while push is healthy: what starts then was pushed.
QUICK = {"polling_interval": POLLING, "sweep_interval": 3600.0, "probe_interval": 1.0, "push": "changes"}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and patience a tenth of what they are, so that each fault takes seconds."""
    monkeypatch.setattr(realtime, "RECONNECT", Backoff(0.05, 1.0, jitter="full"))
    monkeypatch.setattr(realtime, "JOIN_TIMEOUT", 3)
    monkeypatch.setattr("reactive_worker.store.push.changes.READY_TIMEOUT", 2.0)
    monkeypatch.setattr(realtime, "CLOSE_TIMEOUT", 0.5)


async def healthy(worker: Any, timeout: float = 60) -> None:
    await eventually(
        lambda: worker.health.state is PushState.HEALTHY, timeout=timeout, what="push is healthy again"
    )


async def pushed(db: str) -> None:
    """One more task, and the next sweep is an hour away."""
    (id,) = await insert(db, ["pushed"])
    ended = "select id from todolist where id = %s and agent_status = 'completed'"
    await eventually(lambda: query(db, ended, id), timeout=30, what="a pushed task was run")


def frame(text: str) -> bytes:
    """A websocket text frame, as a server sends it."""
    assert len(text) < 126
    return bytes([0x81, len(text)]) + text.encode()


# -- what happens once ---------------------------------------------------------------------------------------

ONCE: dict[str, Callable[[Any], None]] = {
    "socket cut": lambda faults: faults.drop_sockets(1006),
    "socket closed 1000": lambda faults: faults.drop_sockets(1000),
    "socket closed 1001": lambda faults: faults.drop_sockets(1001),
    "socket closed 1009, a frame too big": lambda faults: faults.drop_sockets(1009),
    "socket closed 1012, server restart": lambda faults: faults.drop_sockets(1012),
    "channel closed": lambda faults: faults.phx_close_all(),
    "channel error": lambda faults: faults.phx_error_all(),
    "subscription error": lambda faults: faults.system_error_all("Subscription lost"),
}


@pytest.mark.parametrize(
    ("what", "push"),
    [*((what, "changes") for what in ONCE), ("socket cut", "broadcast"), ("channel closed", "broadcast")],
)
async def test_what_ends_a_socket_or_a_channel(local_supabase: Any, what: str, push: str) -> None:
    db = local_supabase.db_url
    fault = ONCE[what]
    async with running_worker(local_supabase, Echo(), settings={**QUICK, "push": push}) as worker:
        await healthy(worker)
        told: list[PushState] = []
        worker.health_changes.subscribe(lambda health: told.append(health.state))
        before = worker.health.since
        async with feeding(db):
            fault(local_supabase.faults)
            await eventually(lambda: worker.health.since > before, what="the fault was noticed")
            await healthy(worker)
        await pushed(db)
        assert told[0] is PushState.CONNECTING
        assert told[-1] is PushState.HEALTHY
        assert await longest_wait(db) <= POLLING + 1
    assert await broken_logs(db) == []


async def test_what_a_client_cannot_read_or_use(local_supabase: Any, caplog: Any) -> None:
    """Frames nobody can parse, a callback that raises, a loop that was blocked: hearing goes on."""
    db = local_supabase.db_url
    async with (
        proxy_to(local_supabase, "/realtime/") as proxy,
        running_worker(through(local_supabase, proxy), Echo(), settings=QUICK) as worker,
    ):
        await healthy(worker)
        since = worker.health.since
        for text in ("no json", "[]", '{"event":"postgres_changes","topic":"realtime:x"}', '{"ref":1}'):
            proxy.inject(frame(text))
        await pushed(db)

        assert worker._session is not None
        push: Any = worker._session.push
        use = push._row

        def raise_once(record: Any) -> None:
            push._row = use
            raise RuntimeError("a callback of ours")

        push._row = raise_once
        await insert(db, ["lost for push"])
        await eventually(lambda: push._row is use)
        assert "could not be used" in caplog.text
        await pushed(db)
        assert worker.health.since == since, "none of this ended the subscription"
        # Nobody was told of that row any more: the next sweep, whatever it is made for, finds it.
        worker._session.sweep_now()
        await eventually(lambda: completed(db, 3))

        # As a blocking executor does: heartbeats stay away, the server closes the socket, nobody can look.
        local_supabase.faults.drop_sockets(1000)
        time.sleep(0.5)
        await eventually(lambda: worker.health.since > since)
        await healthy(worker)
        await pushed(db)


@pytest.mark.parametrize("size", [1_048_576 - 700, 10_000_000], ids=["just below 1 MiB", "10 MB"])
async def test_a_row_too_big_for_a_frame(local_supabase: Any, size: int) -> None:
    """Just below Realtime's own limit the frame is beyond the client's: it closes the socket with 1009."""
    db = local_supabase.db_url
    async with running_worker(local_supabase, Echo(), settings=QUICK) as worker:
        await healthy(worker)
        await insert(db, ["x" * size], input_data={"quiet": True})
        await eventually(lambda: completed(db, 1), timeout=30)
        await healthy(worker)
        await pushed(db)
        assert await longest_wait(db) <= POLLING + 1


# -- what lasts ----------------------------------------------------------------------------------------------


class Lasting:
    """A fault that is there until it is lifted."""

    def __init__(self, proxy: FaultyProxy, faults: Any) -> None:
        self._proxy = proxy
        self._faults = faults

    def begin(self, what: str) -> None:
        match what:
            case "connections reset":
                self._proxy.mode = "cut"
            case "handshakes refused":
                self._proxy.mode = "refuse"
            case "network swallows":
                self._proxy.mode = "swallow"
            case "joins never answered":
                self._proxy.mode = "mute"
                self._faults.drop_sockets(1006)
            case "joins refused":
                self._faults.join_refusal_delay = 0.1
                self._faults.refuse_joins = (
                    "IncreaseConnectionPool: Please increase your connection pool size"
                )
                self._faults.drop_sockets(1006)
            case "system ok never comes":
                self._faults.withhold_system_ok = True
                self._faults.drop_sockets(1006)
            case _:
                assert what == "deaf"
                self._faults.deaf = self._faults.broadcast_deaf = True

    def lift(self) -> None:
        self._faults.reset()
        # A connection that was swallowed is lost for good; whoever uses it has to notice that by himself.
        self._proxy.mode = "pass"


#: Faults nobody is told of: from the last echo to the missed one, a task waits for the next sweep.
SILENT = ("network swallows", "deaf")


@pytest.mark.parametrize(
    ("what", "push"),
    [
        ("connections reset", "changes"),
        ("handshakes refused", "changes"),
        ("network swallows", "changes"),
        ("joins never answered", "changes"),
        ("joins refused", "changes"),
        ("system ok never comes", "changes"),
        ("deaf", "changes"),
        ("deaf", "broadcast"),
    ],
)
async def test_what_keeps_a_worker_from_hearing(local_supabase: Any, what: str, push: str) -> None:
    db = local_supabase.db_url
    settings = {**QUICK, "push": push}
    async with (
        proxy_to(local_supabase, "/realtime/") as proxy,
        running_worker(through(local_supabase, proxy), Echo(), settings=settings) as worker,
    ):
        impatient(worker, 0.5)
        await healthy(worker)
        fault = Lasting(proxy, local_supabase.faults)
        if what in SILENT:
            fault.begin(what)
            await eventually(lambda: worker.health.state is not PushState.HEALTHY, what="noticed")
        async with feeding(db) as fed:
            if what not in SILENT:
                fault.begin(what)
            await eventually(lambda: worker.health.state is not PushState.HEALTHY, what="noticed")
            await eventually(lambda: completed(db, 8), timeout=30)
            assert worker.health.state is not PushState.HEALTHY
            ill = "select info ->> 'push_since' as since from workers where info ->> 'push' <> 'healthy'"
            await eventually(lambda: query(db, ill), what="`workers list` says so")
        await eventually(lambda: completed(db, len(fed)))
        assert await longest_wait(db) <= POLLING + 1
        fault.lift()
        await healthy(worker)
        await pushed(db)
    assert await broken_logs(db) == []


async def test_deafness_nobody_has_noticed_yet_lasts_until_a_sweep_finds_something(
    local_supabase: Any,
) -> None:
    """The next probe is an hour away: the sweep itself finds out that push did not tell."""
    db = local_supabase.db_url
    settings = {**QUICK, "probe_interval": 3600.0, "sweep_interval": 4.0}
    async with running_worker(local_supabase, Echo(), settings=settings) as worker:
        impatient(worker, 0.5)
        await healthy(worker)
        local_supabase.faults.deaf = True
        async with feeding(db):
            await eventually(lambda: worker.health.state is PushState.DEAF)
        assert await longest_wait(db) <= settings["sweep_interval"] + 1


@pytest.mark.parametrize(("outage", "push"), [(25.0, "changes"), (300.0, "changes"), (300.0, "broadcast")])
async def test_an_outage_longer_than_realtime_py_tries(
    local_supabase: Any, outage: float, push: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five failures in a row, some 15 s, are the end of realtime-py. Here the pauses pass at once."""
    db = local_supabase.db_url
    passed = 0.0

    async def pass_at_once(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        await asyncio.sleep(0.02)

    if not LITERAL:
        monkeypatch.setattr(realtime, "wait", pass_at_once)
    monkeypatch.setattr(realtime, "RECONNECT", Backoff(0.5, 30.0, jitter="full"))
    settings = {**QUICK, "push": push}
    async with (
        proxy_to(local_supabase, "/realtime/") as proxy,
        running_worker(through(local_supabase, proxy), Echo(), settings=settings) as worker,
    ):
        await healthy(worker)
        began, passed, tries = time.monotonic(), 0.0, proxy.connections
        proxy.mode = "cut"
        async with feeding(db) as fed:
            await eventually(
                lambda: (time.monotonic() - began if LITERAL else passed) >= outage, timeout=outage + 60
            )
            await eventually(lambda: completed(db, 5))
        await eventually(lambda: completed(db, len(fed)))
        assert proxy.connections - tries > 5, "realtime-py alone would have given up by now"
        assert await longest_wait(db) <= POLLING + 1
        proxy.mode = "pass"
        await healthy(worker)
        await pushed(db)
