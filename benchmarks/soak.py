"""Minutes of load with random faults, then the books: what was lost, what ended twice, what leaked.

    python benchmarks/soak.py [--minutes 10] [--rate 50] [--seed 1]

Every few seconds one of these: a worker is killed with -9, stopped in its tracks for longer than its lease,
or restarted by SIGTERM; sockets are cut or closed, push goes deaf, the API answers 503, swallows requests or
is gone; PostgreSQL crashes. The last worker is never killed or restarted, so that its memory, descriptors,
threads and asyncio tasks can be watched from the first minute to the last.

Ends with exit code 1 when a task was lost or ended twice, a log has a gap, an attempt wrote after the next
one had begun, a rerun has no explanation in its log, something grew, or a process or session stayed behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
from a2a.helpers import new_data_part
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.executors.echo import EchoExecutor
from reactive_worker.testing.fragile import FragileSupabase
from reactive_worker.testing.workers import WorkerProcess, eventually

PROBE = "how are you"
LEASE = 10.0
#: Exit code of a worker that finds nobody to register with.
UNREACHABLE = 3

#: What is watched in the surviving worker. The first three: by how much the median may grow from the first
#: quarter of the run to the last. Its asyncio tasks follow what it runs: they are counted when it is idle,
#: before the load and after it.
ALLOWED = {"MB": 15, "descriptors": 6, "threads": 4, "asyncio tasks": 3}

BOOKS = """
with ends as (
  select t.id, t.agent_status, t.attempt, count(e.*) as events, min(e.seq) as first, max(e.seq) as last,
    count(*) filter (where e.event_type in
      ('task_completed', 'task_failed', 'task_rejected', 'task_cancelled')) as ends,
    count(*) filter (where e.event_type = 'task_started') as starts,
    count(*) filter (where e.event_type in ('task_lost', 'task_released', 'task_retrying')) as reasons
  from todolist t left join events e on e.todolist_id = t.id
  group by t.id
)
select count(*) as submitted,
  count(*) filter (where agent_status = 'completed') as completed,
  count(*) filter (where ends > 1) as doubled,
  count(*) filter (where events > 0 and (first <> 1 or last <> events)
                      or (ends = 1) <> (agent_status in ('completed', 'failed', 'cancelled'))) as broken,
  count(*) filter (where attempt > 1) as again,
  count(*) filter (where starts <> attempt or attempt > 0 and reasons <> attempt - 1
                     and agent_status = 'completed') as unexplained
from ends
"""
LATE = """
select count(*) as late from events e
join events later on later.todolist_id = e.todolist_id and later.event_type = 'task_started'
 and later.attempt > e.attempt and later.seq < e.seq
"""
WHY = """
select e.event_type, coalesce(e.message, '') as message, count(*) from events e
where e.event_type in ('task_lost', 'task_released', 'task_retrying') group by 1, 2 order by 3 desc
"""
PROBES = """
select agent_output -> 'artifacts' -> 0 -> 'parts' -> 0 -> 'data' from todolist
where prompt = %s and agent_status = 'completed' order by completed_at desc limit 1
"""
SESSIONS = """
select (select count(*) from pg_stat_activity where datname = current_database()),
       (select count(*) from pg_replication_slots), (select count(*) from workers)
"""


class Probed(EchoExecutor):
    """The echo; asked how it is, it tells what its process holds."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        if context.get_user_input() != PROBE:
            await super().execute(context, event_queue)
            return
        held = {"pid": os.getpid(), "tasks": len(asyncio.all_tasks()), "threads": threading.active_count()}
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        await updater.add_artifact([new_data_part(held)])
        await updater.complete()


executor = Probed()


async def fetch(supabase: FragileSupabase, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows; an empty list while the database is away."""
    try:
        async with await psycopg.AsyncConnection.connect(supabase.db_url, autocommit=True) as connection:
            cursor = await connection.execute(sql, parameters)  # type: ignore[arg-type]
            return await cursor.fetchall() if cursor.description else []
    except (psycopg.OperationalError, RuntimeError):
        return []


def status_of(pid: int, name: str) -> int:
    """A figure of /proc/PID/status; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def open_files(pid: int) -> int:
    """Open descriptors of a process; sockets that leak show here."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def children() -> set[int]:
    """Processes below this one."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if status_of(pid, "PPid") in ({os.getpid()} | found):
            found.add(pid)
    return found


async def load(supabase: FragileSupabase, rate: int, until: float) -> int:
    """`rate` tasks a second; returns how many were committed."""
    sql = (
        "with put as (insert into todolist (agent_type, prompt, input_data, max_failures)"
        " select 'bench', 'soak ' || n, '{\"delay\": 0.02}', 100"
        " from generate_series(1, %s) n returning 1) select count(*) from put"
    )
    submitted = 0
    while time.monotonic() < until:
        began = time.monotonic()
        for (rows,) in await fetch(supabase, sql, rate):
            submitted += rows
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))
    return submitted


class Trouble:
    """Something bad every few seconds."""

    def __init__(self, supabase: FragileSupabase, fleet: list[WorkerProcess], chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._supabase = supabase
        self._fleet = fleet
        self._chance = chance

    async def make(self, until: float) -> None:
        """Go on until `until`; every kind of fault comes before any comes again."""
        bag: list[str] = []
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.uniform(3, 8))
            if not bag:
                bag = ["kill", "kill", "freeze", "restart", "cut", "close", "deaf", "refuse", "swallow"]
                bag += ["gateway", "crash"]
                self._chance.shuffle(bag)
            what = bag.pop()
            print(f"  {what}", flush=True)
            await getattr(self, f"_{what}")()
            self.done[what] += 1

    async def supervise(self) -> None:
        """Start again what could not start during an outage, as systemd or Kubernetes would."""
        while True:
            await asyncio.sleep(1)
            for process in self._fleet:
                if process.returncode == UNREACHABLE:
                    process.start()
                    self.done["started again"] += 1

    def _victim(self) -> WorkerProcess:
        return self._chance.choice(self._fleet[:-1])

    async def _for_a_while(self) -> None:
        await asyncio.sleep(self._chance.uniform(1, 10))

    async def _kill(self) -> None:
        victim = self._victim()
        victim.kill()
        victim.start()

    async def _freeze(self) -> None:
        """A machine that was asleep: its lease runs out, others take over, it wakes up and goes on."""
        victim = self._victim()
        os.kill(victim.pid, signal.SIGSTOP)
        await asyncio.sleep(LEASE + self._chance.uniform(2, 5))
        os.kill(victim.pid, signal.SIGCONT)

    async def _restart(self) -> None:
        victim = self._victim()
        victim.terminate()
        code = await victim.wait(120)
        # It may have been started a moment ago, and not yet be listening to signals; or into an outage.
        if code not in (0, -signal.SIGTERM, UNREACHABLE):
            raise AssertionError(f"a worker ended with exit code {code} on SIGTERM")
        victim.start()

    async def _cut(self) -> None:
        self._supabase.faults.drop_sockets(1006)

    async def _close(self) -> None:
        self._supabase.faults.phx_close_all()

    async def _deaf(self) -> None:
        self._supabase.faults.apply({"deaf": True, "broadcast_deaf": True})
        await self._for_a_while()
        self._supabase.faults.apply({"deaf": False, "broadcast_deaf": False})

    async def _refuse(self) -> None:
        self._supabase.faults.rest_status = 503
        await self._for_a_while()
        self._supabase.faults.rest_status = None

    async def _swallow(self) -> None:
        self._supabase.faults.swallow = True
        await self._for_a_while()
        self._supabase.faults.swallow = False

    async def _gateway(self) -> None:
        await asyncio.to_thread(self._supabase.stop_api)
        await self._for_a_while()
        await asyncio.to_thread(self._supabase.start_api)

    async def _crash(self) -> None:
        await asyncio.to_thread(self._supabase.crash_database)
        await asyncio.sleep(self._chance.uniform(0, 3))
        await asyncio.to_thread(self._supabase.start_database)


class Watch:
    """Looks at the surviving worker every few seconds."""

    def __init__(self, supabase: FragileSupabase, pid: int) -> None:
        self.seen: dict[str, list[int]] = {name: [] for name in ALLOWED}
        self._supabase = supabase
        self.pid = pid

    async def look(self) -> None:
        """One look, and one line."""
        self.seen["MB"].append(status_of(self.pid, "VmRSS") // 1024)
        self.seen["descriptors"].append(open_files(self.pid))
        self.seen["threads"].append(status_of(self.pid, "Threads"))
        figures = ", ".join(f"{values[-1]} {name}" for name, values in self.seen.items() if values)
        for row in await fetch(self._supabase, BOOKS):
            line = "{:7} submitted {:7} completed {} doubled {} broken {:5} ran again {} unexplained"
            print(line.format(*row), "  ", figures, flush=True)

    async def ask_when_idle(self) -> None:
        """How many asyncio tasks it has while it runs nothing but our question."""
        await asyncio.sleep(2)
        for _ in range(100):
            await fetch(
                self._supabase, "insert into todolist (agent_type, prompt) values ('bench', %s)", PROBE
            )
            await eventually(lambda: settled(self._supabase), timeout=60)
            told = [row[0] for row in await fetch(self._supabase, PROBES, PROBE) if row[0]]
            if told and int(told[0]["pid"]) == self.pid:
                self.seen["asyncio tasks"].append(int(told[0]["tasks"]))
                return
        raise AssertionError("the surviving worker never got a question")

    def grown(self) -> dict[str, int]:
        """By how much the median of the last quarter is above that of the first; a tenth is warming up."""
        found: dict[str, int] = {}
        for name, values in self.seen.items():
            steady = values if name == "asyncio tasks" else values[len(values) // 10 :]
            quarter = max(1, len(steady) // 4)
            found[name] = round(statistics.median(steady[-quarter:]) - statistics.median(steady[:quarter]))
        return found


async def settled(supabase: FragileSupabase) -> bool:
    """Every row has come to its end."""
    rows = await fetch(supabase, "select count(*) from todolist where agent_status <> 'completed'")
    return bool(rows) and rows[0][0] == 0


async def alive(supabase: FragileSupabase, wanted: int) -> bool:
    """All workers have registered."""
    rows = await fetch(supabase, "select count(*) from workers")
    return bool(rows) and rows[0][0] >= wanted


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        # Read by the database's own user, when this runs as root.
        Path(folder).chmod(0o755)
        log = Path(tempfile.gettempdir()) / "reactive-worker-soak.log"
        log.write_text("")
        with FragileSupabase(Path(folder) / "data") as supabase:
            fleet = [
                WorkerProcess(
                    supabase,
                    "soak:executor",
                    agent_type="bench",
                    cwd=here,
                    log=log,
                    concurrency=20,
                    lease=LEASE,
                    heartbeat=2,
                ).start()
                for _ in range(3)
            ]
            try:
                await eventually(lambda: alive(supabase, len(fleet)), timeout=120)
                watch = Watch(supabase, fleet[-1].pid)
                await watch.ask_when_idle()
                until = time.monotonic() + options.minutes * 60
                loading = asyncio.create_task(load(supabase, options.rate, until))
                trouble = Trouble(supabase, fleet, random.Random(options.seed))
                troubling = asyncio.create_task(trouble.make(until))
                supervising = asyncio.create_task(trouble.supervise())
                while not (loading.done() and troubling.done()):
                    await asyncio.wait((loading, troubling), timeout=5, return_when=asyncio.FIRST_EXCEPTION)
                    for task in (loading, troubling):
                        if task.done():
                            task.result()
                    await watch.look()
                submitted = await loading
                await troubling
                await eventually(lambda: alive(supabase, len(fleet)), timeout=120)
                supervising.cancel()
                if watch.pid != fleet[-1].pid or fleet[-1].returncode is not None:
                    raise AssertionError("the worker that is watched has ended")
                await eventually(lambda: settled(supabase), timeout=180, interval=1, what="all tasks ended")
                await watch.look()
                await watch.ask_when_idle()
                books = (await fetch(supabase, BOOKS))[0]
                late = (await fetch(supabase, LATE))[0][0]
                why = await fetch(supabase, WHY)
            finally:
                for process in fleet:
                    process.terminate()
                codes = [await process.wait() for process in fleet]
            sessions = (await fetch(supabase, SESSIONS))[0]
    names = ("submitted", "completed", "doubled", "broken logs", "ran more than once", "unexplained reruns")
    print(f"\nfaults: {dict(trouble.done)}; exit codes {codes}; log {log}")
    print(
        f"{submitted} inserts were confirmed;",
        ", ".join(f"{n} {k}" for k, n in zip(names, books, strict=True)),
    )
    print(
        "why again:",
        "; ".join(f"{n} x {kind} {text}".strip() for kind, text, n in why) or "nothing ran again",
    )
    print(f"events of fenced-out attempts: {late}")
    for name, values in watch.seen.items():
        grown = f"grown by {watch.grown()[name]:+} (allowed {ALLOWED[name]})"
        print(f"{name}: {min(values)} to {max(values)}, {grown}")
    print(f"left: {sessions[0]} sessions, {sessions[1]} slots, {sessions[2]} workers, processes {children()}")
    good = (
        books[1] == books[0] > submitted > 0
        and not any((books[2], books[3], books[5], late))
        and all(watch.grown()[name] <= most for name, most in ALLOWED.items())
        and not any(codes)
        # The slot is the running gateway's; frozen and killed workers' rows are swept by the living.
        and sessions[1] <= 2
        and not children()
    )
    print("good" if good else "NOT GOOD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
