"""How long a row waits for its start: pushed through Realtime, against found by polling, side by side.

    python benchmarks/pickup.py [--rows 200] [--json]

Rows are inserted one at a time by supabase-py; the wait is `started_at - created_at`, both in database time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
from typing import Any

import psycopg
from supabase import acreate_client

from reactive_worker.executors.echo import EchoExecutor
from reactive_worker.local import LocalSupabase
from reactive_worker.models import PushState
from reactive_worker.testing.workers import eventually, running_worker

MODES = {
    "push, 20 ms pacing": ("fast", {"polling_interval": 3600.0, "sweep_interval": 3600.0}),
    "push, hosted pacing": ("hosted", {"polling_interval": 3600.0, "sweep_interval": 3600.0}),
    "polling each 5 s": ("fast", {"polling_interval": 5.0, "sweep_interval": 5.0}),
}


async def waits(supabase: Any) -> list[float]:
    async with await psycopg.AsyncConnection.connect(supabase.db_url) as connection:
        cursor = await connection.execute(
            "select extract(epoch from started_at - created_at) * 1000 from todolist"
            " where agent_type = 'bench' and started_at is not null"
        )
        return sorted(float(value) for (value,) in await cursor.fetchall())


async def measure(name: str, rows: int) -> dict[str, Any]:
    pacing, settings = MODES[name]
    async with LocalSupabase(port=0, db_port=0, pacing=pacing, seed=False) as supabase:
        if name.startswith("polling"):
            supabase.faults.deaf = True
        client = await acreate_client(supabase.api_url, supabase.service_role_key)
        async with running_worker(supabase, EchoExecutor(), agent_type="bench", settings=settings) as worker:
            if not supabase.faults.deaf:
                await eventually(lambda: worker.health.state is PushState.HEALTHY)
            for n in range(rows):
                await client.table("todolist").insert({"agent_type": "bench", "prompt": f"row {n}"}).execute()
                # Not in step with any poll.
                await asyncio.sleep(random.uniform(0.02, 0.08))

            async def all_started() -> bool:
                return len(await waits(supabase)) == rows

            await eventually(all_started, timeout=60)
        found = await waits(supabase)
    centiles = statistics.quantiles(found, n=100)
    return {"mode": name, "rows": rows, "p50_ms": centiles[49], "p99_ms": centiles[98], "max_ms": found[-1]}


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [await measure(name, options.rows) for name in MODES]
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'':24}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for one in results:
        print(f"{one['mode']:24}{one['p50_ms']:10.1f}{one['p99_ms']:10.1f}{one['max_ms']:10.1f}")


if __name__ == "__main__":
    asyncio.run(main())
