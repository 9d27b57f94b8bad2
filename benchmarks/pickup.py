"""How long a row waits for its start: by broadcast, by changes, and found by polling, side by side.

    python benchmarks/pickup.py [--rows 200] [--gap 0.05] [--json]

One idle worker; rows are committed one at a time, `gap` seconds apart. The wait is from the moment the writer
knows that its commit is done to the first line of `execute()`, by one clock, as writer and worker are threads
of one process. "hosted" paces the embedded Realtime like the real server, which sleeps 500 ms whenever it
finds no change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
import uuid
from typing import Any, Literal

import psycopg
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue

from reactive_worker.local import LocalSupabase
from reactive_worker.models import PushState
from reactive_worker.testing.workers import eventually, running_worker

PUSH_ONLY = {"polling_interval": 3600.0, "sweep_interval": 3600.0}
#: ``(name, pacing, settings)``
MODES: list[tuple[str, Literal["fast", "hosted"], dict[str, Any]]] = [
    ("broadcast, hosted pacing", "hosted", {"push": "broadcast", **PUSH_ONLY}),
    ("changes, hosted pacing", "hosted", {"push": "changes", **PUSH_ONLY}),
    ("broadcast, 20 ms pacing", "fast", {"push": "broadcast", **PUSH_ONLY}),
    ("changes, 20 ms pacing", "fast", {"push": "changes", **PUSH_ONLY}),
    ("Realtime off, polling each 5 s", "fast", {"push": "changes"}),
]


class Stopwatch(AgentExecutor):
    """Notes when each task began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.began.setdefault(context.get_user_input(), time.perf_counter())

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        return None


def write(db_url: str, rows: int, gap: float) -> dict[str, float]:
    """Commit `rows` rows one by one; returns when each commit was done, by prompt."""
    committed: dict[str, float] = {}
    with psycopg.connect(db_url, autocommit=True) as connection:
        for _ in range(rows):
            name = str(uuid.uuid4())
            connection.execute("insert into todolist (agent_type, prompt) values ('bench', %s)", [name])
            committed[name] = time.perf_counter()
            # Not in step with any poll.
            time.sleep(gap * random.uniform(0.5, 1.5))
    return committed


async def measure(name: str, rows: int, gap: float) -> dict[str, Any]:
    pacing, settings = next((pacing, settings) for mode, pacing, settings in MODES if mode == name)
    off = name.startswith("Realtime off")
    watch = Stopwatch()
    async with LocalSupabase(port=0, db_port=0, pacing=pacing, seed=False) as supabase:
        if off:
            supabase.faults.refuse_joins = "Realtime is off"
        async with running_worker(supabase, watch, agent_type="bench", settings=settings) as worker:
            if not off:
                await eventually(lambda: worker.health.state is PushState.HEALTHY)
            committed = await asyncio.to_thread(write, supabase.db_url, rows, gap)
            await eventually(lambda: len(watch.began) == rows, timeout=60)
    waits = sorted((watch.began[name] - at) * 1000 for name, at in committed.items())
    centiles = statistics.quantiles(waits, n=100, method="inclusive")
    return {
        "mode": name,
        "rows": rows,
        "p50_ms": centiles[49],
        "p95_ms": centiles[94],
        "p99_ms": centiles[98],
        "max_ms": waits[-1],
    }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--gap", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [await measure(name, options.rows, options.gap) for name, *_ in MODES]
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'ms from commit to execute()':34}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}")
    for one in results:
        figures = "".join(f"{one[f'{figure}_ms']:10.1f}" for figure in ("p50", "p95", "p99", "max"))
        print(f"{one['mode']:34}{figures}")


if __name__ == "__main__":
    asyncio.run(main())
