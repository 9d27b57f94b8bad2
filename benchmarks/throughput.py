"""What a waiting backlog of tasks costs: tasks/s, HTTP requests and worker CPU per task; modes side by side.

    python benchmarks/throughput.py [--rows 5000] [--json]

The rows wait before a worker starts, and the executor answers at once, so what is measured is the worker and
its Supabase: sweep, claim, events, finish. The gateway counts the requests, from the first claim to the last
finish; CPU is user and system time of the worker processes over the same span.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from reactive_worker.local import LocalSupabase
from reactive_worker.local.app import LocalApp
from reactive_worker.testing.workers import WorkerProcess, eventually

#: name -> (processes, concurrency)
MODES = {
    "concurrency 1": (1, 1),
    "concurrency 10": (1, 10),
    "concurrency 100": (1, 100),
    "4 processes, 25 each": (4, 25),
}
#: More than this many requests for one task at concurrency 100 means that batching broke.
MOST_REQUESTS = 0.1


class CountingApp(LocalApp):
    """The gateway's door with a counter of HTTP requests."""

    requests = itertools.count()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            next(self.requests)
        await super().__call__(scope, receive, send)


def requests_so_far() -> int:
    # Looking at an itertools.count costs one number of it; taken off again below.
    return next(CountingApp.requests)


async def fetch(supabase: Any, sql: str) -> Any:
    async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return await cursor.fetchone() if cursor.description else None


def cpu_seconds(fleet: list[WorkerProcess]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in fleet]
    return sum(each.user + each.system for each in times)


async def measure(supabase: Any, name: str, rows: int) -> dict[str, Any]:
    processes, concurrency = MODES[name]
    await fetch(supabase, "truncate todolist cascade")
    fleet = [
        WorkerProcess(
            supabase,
            "reactive_worker.executors.echo:EchoExecutor",
            agent_type="bench",
            log=Path(tempfile.gettempdir()) / "reactive-worker-bench.log",
            concurrency=concurrency,
            lease=30,
            heartbeat=10,
        ).start()
        for _ in range(processes)
    ]
    try:

        async def registered() -> bool:
            return (await fetch(supabase, "select count(*) from workers"))[0] == processes

        await eventually(registered, timeout=60)
        # Start-up is paid once, not for each task: the rows become due when everybody is ready.
        requests, cpu, began = requests_so_far(), cpu_seconds(fleet), time.monotonic()
        await fetch(
            supabase,
            "insert into todolist (agent_type, prompt)"
            f" select 'bench', 'row ' || n from generate_series(1, {int(rows)}) n",
        )

        async def completed() -> bool:
            done = "select count(*) from todolist where agent_status = 'completed'"
            return (await fetch(supabase, done))[0] == rows

        await eventually(completed, timeout=600, interval=0.1)
        seconds = time.monotonic() - began
        requests, cpu = requests_so_far() - requests - 1, cpu_seconds(fleet) - cpu
    finally:
        for process in fleet:
            process.terminate()
        for process in fleet:
            await process.wait()
    return {
        "mode": name,
        "rows": rows,
        "seconds": seconds,
        "tasks_per_second": rows / seconds,
        "requests_per_task": requests / rows,
        "cpu_ms_per_task": cpu * 1000 / rows,
    }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from reactive_worker.local import gateway

    gateway.LocalApp = CountingApp  # type: ignore[misc] - this benchmark counts what comes through the door
    async with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        results = [await measure(supabase, name, options.rows) for name in MODES]
    if options.json:
        print(json.dumps(results))
    else:
        first = results[0]["tasks_per_second"]
        for one in results:
            rate = one["tasks_per_second"]
            print(
                f"{one['mode']:22}{rate:7.0f} tasks/s  × {rate / first:4.1f}"
                f"{one['requests_per_task']:9.3f} requests/task{one['cpu_ms_per_task']:7.2f} ms CPU/task"
            )
    (hundred,) = (one for one in results if one["mode"] == "concurrency 100")
    if hundred["requests_per_task"] > MOST_REQUESTS:
        raise SystemExit(f"more than {MOST_REQUESTS} requests for a task at concurrency 100")


if __name__ == "__main__":
    asyncio.run(main())
