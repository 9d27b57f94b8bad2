"""What the monitor's figures cost with a thousand tasks in the table, and with a million; side by side.

    python benchmarks/stats.py [--rows 1000000] [--json]

`stats` is the whole command as a user runs it, start of Python included; the rest is one request each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from reactive_worker.client.monitor import Monitor
from reactive_worker.local import LocalSupabase

_FILL = """
insert into todolist
  (agent_type, prompt, agent_status, created_at, available_at, started_at, completed_at, error)
select 'type ' || n %% 7, 'row ' || n,
  case when n %% 50 = 0 then 'pending' when n %% 20 = 1 then 'failed' else 'completed' end,
  made, made,
  case when n %% 50 <> 0 then made + interval '1 second' end,
  case when n %% 50 <> 0 then made + interval '1 second' * (2 + n %% 9) end,
  case when n %% 20 = 1 and n %% 50 <> 0 then jsonb_build_object('type', 'Error' || n %% 3) end
from generate_series(1, %s) n
cross join lateral (select now() - n * interval '80 ms' as made) m
"""


async def timed(call: Callable[[], Awaitable[Any]], times: int = 5) -> float:
    await call()
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


async def measure(supabase: Any, rows: int) -> dict[str, Any]:
    async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:
        await connection.execute("truncate todolist cascade")
        await connection.execute("alter table todolist disable trigger user")
        await connection.execute(_FILL, [rows])
        await connection.execute("alter table todolist enable trigger user")
        await connection.execute("vacuum (analyze) todolist")
    environment = {
        **os.environ,
        "SUPABASE_URL": supabase.api_url,
        "SUPABASE_SERVICE_ROLE_KEY": supabase.service_role_key,
    }

    async def command() -> None:
        run = [sys.executable, "-m", "reactive_worker.cli", "stats"]
        process = await asyncio.create_subprocess_exec(*run, env=environment, stdout=subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError("stats failed")

    async with Monitor.from_settings(url=supabase.api_url, key=supabase.service_role_key) as monitor:
        return {
            "rows": rows,
            "counts_and_times_ms": await timed(monitor.get_system_stats),
            "one_type_ms": await timed(lambda: monitor.get_system_stats("type 3")),
            "recent_events_ms": await timed(monitor.get_recent_events),
            "stats_command_ms": await timed(command, 3),
        }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    async with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        results = [await measure(supabase, rows) for rows in (1_000, options.rows)]
    if options.json:
        print(json.dumps(results))
        return
    few, many = results
    print(f"{'':24}{few['rows']:>12,} rows{many['rows']:>12,} rows")
    for name in few:
        if name != "rows":
            print(f"{name:24}{few[name]:>14.0f} ms{many[name]:>14.0f} ms  × {many[name] / few[name]:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
