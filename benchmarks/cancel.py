"""How long a cancelled agent goes on working: from the caller's request to `executor.cancel()`.

    python benchmarks/cancel.py [--cancels 200] [--json]

Three ways to hear of it, side by side: pushed by broadcast, pushed by changes with the pacing of a hosted
project, and found by the heartbeat (here each 2 s) when push is deaf. Caller and worker share a clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.client.tasks import TaskClient
from reactive_worker.local import LocalSupabase
from reactive_worker.models import PushState
from reactive_worker.testing.workers import eventually, running_worker

HEARTBEAT = 2.0
#: name -> (pacing of the embedded Realtime, way of push, whether nothing of it arrives)
MODES = {
    "push by broadcast": ("hosted", "broadcast", False),
    "push by changes, hosted pacing": ("hosted", "changes", False),
    f"heartbeat each {HEARTBEAT:g} s, push deaf": ("fast", "changes", True),
}


class Waiting(AgentExecutor):
    """Runs until it is cancelled, and notes when it was asked."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.asked: dict[str, float] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.started.add(context.task_id or "")
        await asyncio.Event().wait()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.asked[context.task_id or ""] = time.perf_counter()
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def measure(name: str, cancels: int) -> dict[str, Any]:
    pacing, push, deaf = MODES[name]
    executor = Waiting()
    waits: list[float] = []
    settings = {"push": push, "heartbeat": HEARTBEAT, "lease": 10.0, "polling_interval": 0.5}
    async with (
        LocalSupabase(port=0, db_port=0, pacing=pacing, seed=False) as supabase,
        TaskClient.from_settings(url=supabase.api_url, key=supabase.service_role_key) as client,
        running_worker(supabase, executor, agent_type="bench", settings=settings) as worker,
    ):
        if deaf:
            supabase.faults.deaf = True
        else:
            await eventually(lambda: worker.health.state is PushState.HEALTHY)
        for n in range(cancels):
            id = await client.submit_task("bench", f"cancel {n}")
            await eventually(lambda id=id: id in executor.started, interval=0.005)
            # Not in step with any poll or heartbeat.
            await asyncio.sleep(random.uniform(0, 0.5) if not deaf else random.uniform(0, HEARTBEAT))
            began = time.perf_counter()
            await client.cancel_task(id)
            await eventually(lambda id=id: id in executor.asked, interval=0.005)
            waits.append((executor.asked[id] - began) * 1000)
    centiles = statistics.quantiles(waits, n=100)
    return {
        "mode": name,
        "cancels": cancels,
        "p50_ms": centiles[49],
        "p99_ms": centiles[98],
        "max_ms": max(waits),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cancels", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [
        await measure(name, options.cancels if "deaf" not in name else min(options.cancels, 30))
        for name in MODES
    ]
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'':36}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for one in results:
        print(f"{one['mode']:36}{one['p50_ms']:10.1f}{one['p99_ms']:10.1f}{one['max_ms']:10.1f}")


if __name__ == "__main__":
    asyncio.run(main())
