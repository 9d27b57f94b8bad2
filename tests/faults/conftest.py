"""What the fault tests share: processes that are ended whatever happens, and nothing left open.

``FAULTS_LITERAL=1`` runs outages and stalls as long as the promises name them (half a minute, a minute, five
minutes); otherwise they are shortened together with the leases they are measured against.
"""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from reactive_worker.testing.proxy import FaultyProxy
from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.support import count, insert, query

ROOT = Path(__file__).parents[2]
LITERAL = bool(os.environ.get("FAULTS_LITERAL"))

if LITERAL:

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        for item in items:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """A socket nobody closed is found at the end of the test that opened it, not in a later one."""
    yield
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    left = [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]
    assert left == []


@pytest.fixture
def fleet() -> Iterator[list[WorkerProcess]]:
    """Processes to be ended whatever happens."""
    started: list[WorkerProcess] = []
    yield started
    for process in started:
        process.kill()


def worker(supabase: Any, tmp_path: Path, **options: Any) -> WorkerProcess:
    """`reactive-worker run tests.executors:echo`, not started yet; all of them share one log file."""
    return WorkerProcess(supabase, "tests.executors:echo", cwd=ROOT, log=tmp_path / "worker.log", **options)


async def completed(db: str, wanted: int) -> bool:
    return await count(db, "completed") >= wanted


async def registered(db: str, wanted: int) -> bool:
    rows = await query(db, "select count(*) as n from workers")
    return int(rows[0]["n"]) >= wanted


@asynccontextmanager
async def feeding(db: str, *, every: float = 0.2) -> AsyncGenerator[list[str]]:
    """Submits a small task every so often while the body runs; gives the ids."""
    ids: list[str] = []

    async def feed() -> None:
        while True:
            ids.extend(await insert(db, ["meanwhile"]))
            await asyncio.sleep(every)

    task = asyncio.create_task(feed())
    try:
        yield ids
    finally:
        task.cancel()
        await asyncio.wait([task])
    # A feeder that died has fed nothing.
    if not task.cancelled():
        task.result()


async def longest_wait(db: str) -> float:
    """Seconds from the insert of a row to its first start, at most over all rows; waits for the last one."""

    async def none_waits() -> bool:
        return not await query(db, "select id from todolist where started_at is null limit 1")

    await eventually(none_waits)
    wait = "select max(extract(epoch from started_at - created_at)) as wait from todolist"
    return float((await query(db, wait))[0]["wait"])


def impatient(worker: Any, seconds: float = 1.0) -> None:
    """A probe that waits for its echo no longer than this."""
    worker._session.push.probe.echo_timeout = seconds


@dataclass(frozen=True)
class Through:
    """A Supabase as seen through a proxy."""

    api_url: str
    service_role_key: str


def proxy_to(supabase: Any, only: str = "") -> FaultyProxy:
    """A proxy in front of an API."""
    parts = urlsplit(supabase.api_url)
    return FaultyProxy(str(parts.hostname), int(parts.port or 0), only=only)


def through(supabase: Any, proxy: FaultyProxy) -> Through:
    """The same Supabase, reached through a proxy that was started."""
    return Through(proxy.url, supabase.service_role_key)
