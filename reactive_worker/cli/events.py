"""`events`: one task's log, or everybody's, as it was or as it is being written."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console, short
from reactive_worker.cli.options import Commands, add_command, add_connection, load_settings, quiet_logging
from reactive_worker.cli.with_client import run_with_client
from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.models import TodoEvent

EVENT_STYLE = {
    "task_started": "blue",
    "task_completed": "green",
    "task_failed": "red",
    "task_rejected": "red",
    "task_lost": "red",
    "task_retrying": "yellow",
    "task_cancelled": "dim",
    "task_input_required": "magenta",
    "task_auth_required": "magenta",
    "message_received": "cyan",
    "steer_accepted": "cyan",
    "steer_applied": "cyan",
    "steer_refused": "red",
}


def add(commands: Commands) -> None:
    """Register the command."""
    events = add_command(
        commands,
        "events",
        _events,
        "show events of one task, or the newest of all",
        epilog="With an ID, --tail ends after the task's last event; without, it goes on until Ctrl-C.",
    )
    events.add_argument("id", metavar="ID", nargs="?", help="one task's events, in order")
    events.add_argument(
        "-f", "--tail", "--follow", action="store_true", dest="tail", help="go on with what is being written"
    )
    events.add_argument("--after", type=int, default=0, metavar="SEQ", help="only events after this number")
    events.add_argument("--limit", type=int, default=20, metavar="N", help="without ID: the newest N (20)")
    add_connection(events)


def say_event(
    console: Console, event: TodoEvent, *, started: datetime | None = None, with_task: bool = False
) -> None:
    """One event as one line: when, number, type, what was said."""
    if event.created_at is None:
        when = ""
    elif started is not None:
        when = f"+{(event.created_at - started).total_seconds():.2f} s"
    else:
        when = event.created_at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    kind = console.style(EVENT_STYLE.get(event.event_type, "bold"), f"{event.event_type:<20}")
    task = f"{event.todolist_id}  " if with_task else ""
    console.say(f"{when:>12}  {task}{event.seq or 0:>4}  {kind}  {short(event.message or '', 90)}".rstrip())


def _emit(console: Console, event: TodoEvent) -> None:
    console.emit({name: event[name] for name in event if name != "task_state"})


def _events(args: argparse.Namespace, console: Console) -> int:
    if args.id is None:
        if args.after:
            raise ConfigurationError("--after needs an ID: numbers count within one task")
        return _all(args, console)

    async def work(client: TaskClient) -> int:
        if args.tail:
            async for event in client.stream_events(args.id, args.after):
                _emit(console, event)
                say_event(console, event)
        else:
            for event in await client.get_events(args.id, args.after):
                _emit(console, event)
                say_event(console, event)
        return 0

    return run_with_client(args, work)


def _all(args: argparse.Namespace, console: Console) -> int:
    quiet_logging(args)
    settings = load_settings(args)
    from reactive_worker.client.monitor import Monitor

    async def main() -> int:
        async with Monitor.from_settings(settings) as monitor:
            if args.tail:
                async for event in monitor.tail_events(args.limit):
                    _emit(console, event)
                    say_event(console, event, with_task=True)
            else:
                for event in reversed(await monitor.get_recent_events(args.limit)):
                    _emit(console, event)
                    say_event(console, event, with_task=True)
        return 0

    return asyncio.run(main())
