"""What the fault tests share: processes that are ended whatever happens, and nothing left open.

``FAULTS_LITERAL=1`` runs outages and stalls as long as the promises name them (half a minute, a minute, five
minutes); otherwise they are shortened together with the leases they are measured against.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess
from tests.support import count, query

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
