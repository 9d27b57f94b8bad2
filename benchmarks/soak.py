"""Minutes of load with random faults: kills, cut sockets, deaf channels, an API that is away; then the books.

    python benchmarks/soak.py [--minutes 10] [--rate 50] [--seed 1]

Ends with exit code 1 when a task was lost, ended twice, has a gap in its log, or a process kept growing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from reactive_worker.local import LocalSupabase
from reactive_worker.testing.workers import WorkerProcess, eventually

BOOKS = """
select count(*) filter (where agent_status = 'completed') as completed,
       count(*) as submitted,
       count(*) filter (where attempt > 1) as ran_more_than_once,
       (select count(*) from (
          select todolist_id from events group by todolist_id
          having max(seq) <> count(*) or min(seq) <> 1
             or count(*) filter (where event_type in ('task_completed', 'task_failed', 'task_cancelled')) <> 1
       ) broken) as broken_logs
from todolist
"""


async def fetch(supabase: Any, sql: str) -> Any:
    async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return await cursor.fetchone() if cursor.description else None


def resident(pid: int) -> int:
    """Megabytes a process holds now; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)


def open_files(pid: int) -> int:
    """Open descriptors of a process; sockets that leak show here."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


async def load(supabase: Any, rate: int, until: float) -> None:
    while time.monotonic() < until:
        await fetch(
            supabase,
            "insert into todolist (agent_type, prompt, input_data, max_failures)"
            f" select 'bench', 'soak ' || n, '{{\"delay\": 0.02}}', 100 from generate_series(1, {rate}) n",
        )
        await asyncio.sleep(1)


async def trouble(
    supabase: Any, fleet: list[WorkerProcess], chance: random.Random, until: float
) -> dict[str, int]:
    """Something bad every few seconds; the last worker is never killed, so that its memory can be watched."""
    done: dict[str, int] = {}
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(3, 8))
        what = chance.choice(["kill", "cut", "deaf", "away", "close"])
        done[what] = done.get(what, 0) + 1
        if what == "kill":
            victim = chance.choice(fleet[:-1])
            victim.kill()
            victim.start()
        elif what == "cut":
            supabase.faults.drop_sockets(1006)
        elif what == "close":
            supabase.faults.phx_close_all()
        elif what == "deaf":
            supabase.faults.deaf = True
            await asyncio.sleep(chance.uniform(1, 10))
            supabase.faults.deaf = False
        else:
            supabase.faults.rest_status = 503
            await asyncio.sleep(chance.uniform(1, 8))
            supabase.faults.rest_status = None
    return done


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    log = Path(tempfile.gettempdir()) / "reactive-worker-soak.log"
    async with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        fleet = [
            WorkerProcess(
                supabase,
                "reactive_worker.executors.echo:EchoExecutor",
                agent_type="bench",
                log=log,
                concurrency=20,
                lease=10,
                heartbeat=2,
            ).start()
            for _ in range(3)
        ]
        try:
            until = time.monotonic() + options.minutes * 60
            loading = asyncio.create_task(load(supabase, options.rate, until))
            troubling = asyncio.create_task(trouble(supabase, fleet, chance, until))
            memory: list[int] = []
            files: list[int] = []
            while not (loading.done() and troubling.done()):
                await asyncio.sleep(5)
                memory.append(resident(fleet[-1].pid))
                files.append(open_files(fleet[-1].pid))
                row = await fetch(supabase, BOOKS)
                print(
                    f"{row[1]:7} submitted {row[0]:7} completed {row[2]:5} ran again {row[3]:3} broken"
                    f"   {memory[-1]} MB {files[-1]} files",
                    flush=True,
                )
            await loading
            faults = await troubling

            async def all_done() -> bool:
                row = await fetch(supabase, BOOKS)
                return row[0] == row[1]

            await eventually(all_done, timeout=120, interval=1)
            row = await fetch(supabase, BOOKS)
        finally:
            for process in fleet:
                process.terminate()
            codes = [await process.wait() for process in fleet]
    half = len(memory) // 2
    grown = max(memory[half:]) - max(memory[:half]) if half else 0
    print(f"faults: {faults}")
    print(f"{row[0]} of {row[1]} completed, {row[2]} ran more than once, {row[3]} broken logs")
    print(f"memory of the surviving worker: {min(memory)} to {max(memory)} MB, second half {grown:+} MB")
    print(f"its open files: {min(files)} to {max(files)}; exit codes {codes}; log {log}")
    return 0 if row[0] == row[1] and row[3] == 0 and grown < 30 and not any(codes) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
