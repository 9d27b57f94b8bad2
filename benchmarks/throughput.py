"""Tasks per second of a waiting backlog: one at a time, many at a time, several processes; side by side.

    python benchmarks/throughput.py [--rows 2000] [--json]

The executor answers at once, so what is measured is the worker: sweep, claim, events, finish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from reactive_worker.local import LocalSupabase
from reactive_worker.testing.workers import WorkerProcess, eventually

#: name -> (processes, concurrency)
MODES = {"one at a time": (1, 1), "20 at a time": (1, 20), "4 processes, 20 each": (4, 20)}


async def fetch(supabase: Any, sql: str) -> Any:
    async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return await cursor.fetchone() if cursor.description else None


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
        await fetch(
            supabase,
            "insert into todolist (agent_type, prompt)"
            f" select 'bench', 'row ' || n from generate_series(1, {int(rows)}) n",
        )
        began = time.monotonic()

        async def completed() -> bool:
            return (await fetch(supabase, "select count(*) from todolist where agent_status = 'completed'"))[
                0
            ] == rows

        await eventually(completed, timeout=600, interval=0.1)
        seconds = time.monotonic() - began
    finally:
        for process in fleet:
            process.terminate()
        for process in fleet:
            await process.wait()
    return {"mode": name, "rows": rows, "seconds": seconds, "tasks_per_second": rows / seconds}


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    async with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        results = [await measure(supabase, name, options.rows) for name in MODES]
    if options.json:
        print(json.dumps(results))
        return
    first = results[0]["tasks_per_second"]
    for one in results:
        rate = one["tasks_per_second"]
        print(f"{one['mode']:24}{rate:10.0f} tasks/s  × {rate / first:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
