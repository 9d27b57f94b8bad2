"""`events`: one task's log, or everybody's, as it was or as it is being written."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import check_ids, whole_id
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.task_view import say_event
from reactive_worker.cli.with_client import Supabase, run_connected
from reactive_worker.columns import as_row
from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from reactive_worker.models import TodoEvent


def add(commands: Commands) -> None:
    """Register the command."""
    events = add_command(
        commands,
        "events",
        _events,
        "show events of one task, or the newest of all",
        epilog="With an ID, --tail ends after the task's last event; without, it goes on until Ctrl-C.",
    )
    events.add_argument("id", metavar="ID", nargs="?", help="one task's events, in order; or its beginning")
    events.add_argument(
        "-f", "--tail", "--follow", action="store_true", dest="tail", help="go on with what is being written"
    )
    events.add_argument("--after", type=int, default=0, metavar="SEQ", help="only events after this number")
    events.add_argument("--limit", type=int, default=20, metavar="N", help="without ID: the newest N (20)")
    add_connection(events)


def _emit(console: Console, event: TodoEvent) -> None:
    console.emit({name: value for name, value in as_row(event).items() if name != "task_state"})


def _events(args: argparse.Namespace, console: Console) -> int:
    if args.id is None and args.after:
        raise ConfigurationError("--after needs an ID: numbers count within one task")
    if args.id is not None:
        check_ids([args.id])

    async def work(supabase: Supabase) -> int:
        if args.id is not None:
            id = await whole_id(supabase.store, args.id)
            async for event in _of_one(supabase, id, args):
                _emit(console, event)
                say_event(console, event)
        else:
            async for event in _of_all(supabase, args):
                _emit(console, event)
                say_event(console, event, with_task=True)
        return 0

    return run_connected(args, work)


async def _of_one(supabase: Supabase, id: str, args: argparse.Namespace) -> AsyncIterator[TodoEvent]:
    if args.tail:
        async for event in supabase.client.stream_events(id, args.after):
            yield event
        return
    for event in await supabase.client.get_events(id, args.after):
        yield event


async def _of_all(supabase: Supabase, args: argparse.Namespace) -> AsyncIterator[TodoEvent]:
    if args.tail:
        async for event in supabase.monitor.tail_events(args.limit):
            yield event
        return
    for event in reversed(await supabase.monitor.get_recent_events(args.limit)):
        yield event
