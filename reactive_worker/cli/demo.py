"""`demo`: everything at once, on this machine, with nothing installed but Python."""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command, quiet_logging
from reactive_worker.cli.text import duration

if TYPE_CHECKING:
    from reactive_worker.cli.demo_texts import Piece
    from reactive_worker.cli.demo_view import DemoView
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.worker.worker import ReactiveWorker

AGENT_TYPE = "digest"
#: Fewer completed tasks than this are no success.
LEAST_COMPLETED = 3
#: Seconds until push must have proven itself; then the demo goes on with the sweep alone, and says so.
PUSH_TIMEOUT = 20.0
#: Seconds until all tasks must have ended.
TASKS_TIMEOUT = 90.0
#: Seconds between two submissions, and between two chunks of a result: slow enough to watch.
GAP, PACE = 0.15, 0.06
_PRIORITIES = (0, 5, 0, 10, 0, 5)

_DESCRIPTION = """\
Start an embedded Supabase and a worker, submit tasks, and show how they run.

Each TEXT or FILE (the README by default) is digested: its most telling sentences and words, streamed while
they are found. Some tasks wait before the worker starts: the sweep finds those. Realtime tells the others.
"""


def add(commands: Commands) -> None:
    """Register the command."""
    demo = add_command(commands, "demo", _demo, "see it work: no Docker, no key", description=_DESCRIPTION)
    demo.add_argument("texts", metavar="TEXT|FILE", nargs="*", help="what to digest (the README)")
    demo.add_argument(
        "--pacing",
        choices=("fast", "hosted"),
        default="fast",
        help="of Realtime; hosted is as slow as hosted",
    )
    demo.add_argument("--pg-bin", metavar="DIR", help="use the PostgreSQL server in this folder")


def _demo(args: argparse.Namespace, console: Console) -> int:
    from reactive_worker.cli.demo_texts import pieces

    texts = pieces(args.texts)
    quiet_logging(args)
    from reactive_worker.cli.demo_view import DemoView

    view = DemoView(console)
    try:
        events = asyncio.run(_run(args, view, texts))
    finally:
        view.finish()
    return _summary(view, events)


async def _run(args: argparse.Namespace, view: DemoView, texts: Sequence[Piece]) -> int:
    """Everything that is shown while it happens; returns how many events were stored."""
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.local import LocalSupabase

    view.line("supabase", "starting PostgreSQL and the gateway")
    async with LocalSupabase(
        port=0, db_port=0, pg_bin=args.pg_bin, pacing=args.pacing, seed=False
    ) as supabase:
        view.line("supabase", f"ready at {supabase.api_url}, migrations applied")
        async with TaskClient.from_settings(url=supabase.api_url, key=supabase.service_role_key) as client:
            # A third waits before the worker starts: only the sweep can find those.
            waiting = max(1, len(texts) // 3)
            await _submit(client, view, texts[:waiting])
            await _work(client, view, texts[waiting:], supabase)
            return sum([len(await client.get_events(id)) for id in view.tasks])


async def _work(client: TaskClient, view: DemoView, texts: Sequence[Piece], supabase: Any) -> None:
    """Start the worker, submit the rest, wait for all, stop the worker."""
    worker = _worker(view, supabase)
    running = asyncio.create_task(worker.run(), name="demo worker")
    playing = asyncio.create_task(_play(client, view, worker, texts), name="demo tasks")
    try:
        # A worker that dies must not leave the demo waiting for its tasks.
        await asyncio.wait([running, playing], return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            playing.result()
    finally:
        # Also after Ctrl-C: nothing is waited for but the worker's own shutdown.
        playing.cancel()
        worker.stop()
        await asyncio.wait([running, playing])
    running.result()


async def _play(client: TaskClient, view: DemoView, worker: ReactiveWorker, texts: Sequence[Piece]) -> None:
    await worker.ready()
    view.line("worker", f"{worker.name} is registered; waiting for Realtime to prove itself")
    began = time.monotonic()
    while worker.health.state != "healthy" and time.monotonic() - began < PUSH_TIMEOUT:  # noqa: ASYNC110 - the deadline is ours
        await asyncio.sleep(0.02)
    if worker.health.state == "healthy":
        view.line("realtime", f"heard our own probe: push works, after {duration(time.monotonic() - began)}")
    else:
        view.line("realtime", f"not heard within {PUSH_TIMEOUT:g} s; the sweep goes on alone")
    for text in texts:
        await asyncio.sleep(GAP)
        await _submit(client, view, [text])
    for id, shown in view.tasks.items():
        left = TASKS_TIMEOUT - (time.monotonic() - began)
        shown.todo = await client.wait_for_completion(id, max(left, 0.0))


def _worker(view: DemoView, supabase: Any) -> ReactiveWorker:
    import reactivex
    from reactivex import operators as ops

    from reactive_worker.executors.digest import DigestExecutor
    from reactive_worker.models import Candidate
    from reactive_worker.settings import Settings
    from reactive_worker.worker.worker import ReactiveWorker

    def watch(candidates: reactivex.Observable[Candidate]) -> reactivex.Observable[Candidate]:
        return candidates.pipe(ops.do_action(lambda candidate: view.offered(candidate.id, candidate.source)))

    settings = Settings(
        url=supabase.api_url, key=supabase.service_role_key, concurrency=4, worker_name="demo"
    )
    worker = ReactiveWorker(
        DigestExecutor(pace=PACE),
        agent_type=AGENT_TYPE,
        settings=settings,
        candidates=watch,
        handle_signals=False,
    )
    worker.events.subscribe(
        on_next=lambda event: view.said(event.todolist_id, event.event_type, event.message)
    )
    return worker


async def _submit(client: TaskClient, view: DemoView, texts: Sequence[Piece]) -> None:
    for text in texts:
        priority = _PRIORITIES[len(view.tasks) % len(_PRIORITIES)]
        # Shown before the row exists: the worker may be faster than the answer to our insert.
        id = str(uuid.uuid4())
        view.add(id, text.title, priority)
        await client.submit_task(
            AGENT_TYPE, text.text, {"sentences": text.sentences}, priority=priority, id=id
        )


def _summary(view: DemoView, events: int) -> int:
    todos = [shown.todo for shown in view.tasks.values() if shown.todo is not None]
    completed = sum(todo.agent_status == "completed" for todo in todos)
    pushed = [shown for shown in view.tasks.values() if shown.source == "realtime"]
    view.results()
    view.console.say()
    view.picture(events)
    from reactive_worker.cli.demo_view import pickup

    waits = sorted(wait for shown in pushed if (wait := pickup(shown.todo)) is not None)
    median = waits[len(waits) // 2] if waits else None
    seconds = time.monotonic() - view.began
    view.console.emit(
        {
            "completed": completed,
            "tasks": len(view.tasks),
            "through_realtime": len(pushed),
            "through_sweep": len(view.tasks) - len(pushed),
            "pickup_median_seconds": median,
            "events": events,
            "seconds": round(seconds, 3),
        }
    )
    view.console.say(
        f"{completed} of {len(view.tasks)} tasks completed in {seconds:.1f} s; "
        f"{len(pushed)} told by Realtime, from insert to claim {duration(median)} (median)."
    )
    view.console.say()
    view.console.say("next: an agent of your own, in a folder of its own")
    view.console.say("  reactive-worker init my-agent    writes one, and says how to run it")
    enough = completed >= LEAST_COMPLETED and completed == len(view.tasks)
    if not enough:
        view.console.error(f"only {completed} of {len(view.tasks)} tasks completed")
    return 0 if enough else 1
