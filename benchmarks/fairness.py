"""What fairness costs: one tenant with many tasks and nine with a few, strictly by age against `fair_by`.

    python benchmarks/fairness.py [--rows 10000] [--json]

Both orders in one run, on one database: when the nine were done, and tasks per second over all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import psycopg

from reactive_worker import streams
from reactive_worker.executors.echo import EchoExecutor
from reactive_worker.local import LocalSupabase
from reactive_worker.testing.workers import eventually, running_worker

ORDERS: dict[str, Any] = {"strictly by age": None, 'fair_by("owner_id")': streams.fair_by("owner_id")}
_FILL = """
insert into todolist (agent_type, prompt, owner_id)
select 'bench', tenant::text, md5(tenant::text)::uuid
from (select 0 as tenant from generate_series(1, %s)
      union all select 1 + n %% 9 from generate_series(1, 90) n) rows
"""


async def measure(supabase: Any, name: str, rows: int) -> dict[str, Any]:
    async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:

        async def done(condition: str) -> int:
            cursor = await connection.execute(
                f"select count(*) from todolist where agent_status = 'completed' and {condition}"
            )
            row = await cursor.fetchone()
            return int(row[0]) if row else 0

        await connection.execute("truncate todolist cascade")
        await connection.execute(_FILL, [rows])
        began = time.monotonic()
        settings = {"concurrency": 50}
        async with running_worker(
            supabase, EchoExecutor(), agent_type="bench", settings=settings, order=ORDERS[name]
        ):

            async def small_ones_done() -> bool:
                return await done("prompt <> '0'") == 90

            async def all_done() -> bool:
                return await done("true") == rows + 90

            await eventually(small_ones_done, timeout=1200, interval=0.1)
            small = time.monotonic() - began
            before = await done("true")
            await eventually(all_done, timeout=1200, interval=0.1)
            seconds = time.monotonic() - began
    return {
        "order": name,
        "tasks_before_the_nine_were_done": before,
        "nine_done_after_s": small,
        "tasks_per_second": (rows + 90) / seconds,
    }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    async with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        results = [await measure(supabase, name, options.rows) for name in ORDERS]
    if options.json:
        print(json.dumps(results))
        return
    first = results[0]["tasks_per_second"]
    for one in results:
        print(
            f"{one['order']:22} the nine were done after {one['nine_done_after_s']:6.1f} s"
            f" ({one['tasks_before_the_nine_were_done']} tasks),"
            f" {one['tasks_per_second']:5.0f} tasks/s over all × {one['tasks_per_second'] / first:.2f}"
        )


if __name__ == "__main__":
    asyncio.run(main())
