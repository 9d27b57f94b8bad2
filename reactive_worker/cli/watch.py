"""`watch`: tasks, workers and events, live in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Coroutine, Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command, add_connection, load_settings, quiet_logging
from reactive_worker.errors import ConfigurationError, UnreachableError

if TYPE_CHECKING:
    from rich.live import Live

    from reactive_worker.cli.watch_view import Snapshot
    from reactive_worker.client.monitor import Monitor
    from reactive_worker.models import TodoEvent
    from reactive_worker.settings import Settings

#: Events kept for the picture; no terminal is higher.
EVENTS = 200
#: Running tasks asked for.
RUNNING = 50
#: Seconds a look may take before the picture says that nobody answers.
PATIENCE = 5.0
#: The pause after a look, at least, as a multiple of what it took: counting many millions of rows takes
#: seconds, and whoever watches must not keep the database busy with it.
REST = 5
_EPILOG = (
    "q or Escape ends (exit code 0), Ctrl-C, too (130). For scripts: `stats --json`, `events --tail --json`."
)


def add(commands: Commands) -> None:
    """Register the command."""
    watch = add_command(commands, "watch", _watch, "watch tasks, workers and events live", epilog=_EPILOG)
    watch.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks, at least (1)"
    )
    add_connection(watch)


def _watch(args: argparse.Namespace, console: Console) -> int:
    if not console.is_terminal or not sys.stdin.isatty():
        raise ConfigurationError(
            "watch draws on a terminal, and this is none; for scripts there are "
            "`reactive-worker stats --json` and `reactive-worker events --tail --json`"
        )
    if not 0.1 <= args.interval <= 3600:
        raise ConfigurationError("--interval must be between 0.1 and 3600 seconds")
    quiet_logging(args)
    return asyncio.run(_main(load_settings(args), args.interval))


async def _main(settings: Settings, interval: float) -> int:
    from rich.console import Console as Screen
    from rich.live import Live

    from reactive_worker.client.monitor import Monitor

    quit_ = asyncio.Event()
    async with Monitor.from_settings(settings) as monitor:
        # Before the screen changes: a wrong key is one line, as everywhere.
        first = await look(monitor, Events())
        with Live(console=Screen(), screen=True, auto_refresh=False) as live, _keys(quit_):
            events = Events()
            await _first_of(
                quit_.wait(), _redraw(live, monitor, events, first, interval), _follow(monitor, events)
            )
    return 0


class Events:
    """The newest events of all tasks."""

    def __init__(self) -> None:
        self.newest: deque[TodoEvent] = deque(maxlen=EVENTS)

    async def follow(self, monitor: Monitor) -> None:
        """Go on for ever."""
        async for event in monitor.tail_events(EVENTS // 4):
            self.newest.append(event)


async def look(monitor: Monitor, events: Events) -> Snapshot:
    """One snapshot of everything; raises what the store raises."""
    from reactive_worker.cli.watch_view import Snapshot

    stats, workers, running = await asyncio.gather(
        monitor.get_system_stats(), monitor.get_workers(), monitor.get_running_tasks(RUNNING)
    )
    alive = sorted(workers, key=lambda worker: (not worker["alive"], str(worker["name"]), str(worker["id"])))
    return Snapshot(
        at=datetime.now(UTC),
        stats=stats,
        workers=alive,
        running=running,
        events=tuple(events.newest),
    )


async def _redraw(live: Live, monitor: Monitor, events: Events, snapshot: Snapshot, interval: float) -> None:
    from reactive_worker.cli.watch_view import draw

    pause = interval
    while True:
        size = live.console.size
        live.update(draw(snapshot, width=size.width, height=size.height), refresh=True)
        await asyncio.sleep(pause)
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                snapshot = await look(monitor, events)
            pause = max(interval, REST * (time.monotonic() - began))
        except (UnreachableError, TimeoutError) as error:
            now = datetime.now(UTC)
            what = str(error) or f"no answer within {PATIENCE:g} s"
            snapshot = replace(snapshot, at=now, outage=what, outage_since=snapshot.outage_since or now)


async def _follow(monitor: Monitor, events: Events) -> None:
    while True:
        try:
            await events.follow(monitor)
        except UnreachableError:
            # The picture says so; the next try shows what came meanwhile.
            await asyncio.sleep(1)


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Run until the first one ends, and raise what it raised.

    So that a key is heard while Supabase does not answer, and a flow of events that has stopped does not look
    like one that is quiet.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@contextlib.contextmanager
def _keys(quit_: asyncio.Event) -> Generator[None]:
    """Hear single keys: the terminal hands over whole lines otherwise."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before: Any = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        keys: bytes = sys.stdin.buffer.raw.read(32)  # type: ignore[attr-defined] - a file has a raw one
        # Escape alone: an arrow key is Escape and more, and ends nothing.
        if keys in (b"", b"\x1b") or (b"q" in keys.lower() and b"\x1b" not in keys):
            quit_.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
