"""`wait`: until tasks have ended, or ask something; what a script does between two commands."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import check_ids, whole_ids
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.styled import status
from reactive_worker.cli.task_view import say_result, todo_json
from reactive_worker.cli.with_client import Supabase, run_connected

if TYPE_CHECKING:
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.models import Todo

_EPILOG = """\
Exit code 0 when every task completed or waits for an answer, 1 when one failed, was cancelled, or has not
ended within --timeout.
"""


def add(commands: Commands) -> None:
    """Register the command."""
    wait = add_command(
        commands, "wait", _wait, "wait until tasks have ended or ask something", epilog=_EPILOG
    )
    wait.add_argument("ids", metavar="ID", nargs="+")
    wait.add_argument("--timeout", type=float, metavar="SECONDS", help="wait at most so long")
    add_connection(wait)


def _wait(args: argparse.Namespace, console: Console) -> int:
    check_ids(args.ids)

    async def work(supabase: Supabase) -> int:
        client = supabase.client
        ids = await whole_ids(supabase.store, args.ids)
        todos = await asyncio.gather(
            *(client.wait_for_completion(id, args.timeout, return_when_parked=True) for id in ids)
        )
        for todo in todos:
            console.emit(todo_json(todo))
            if console.json:
                continue
            console.say(f"{todo.id}  ", status(todo.agent_status))
            if todo.agent_status == "input_required":
                console.say(await _question(client, todo))
            say_result(console, todo)
        return 0 if all(todo.agent_status in ("completed", "input_required") for todo in todos) else 1

    return run_connected(args, work)


async def _question(client: TaskClient, todo: Todo) -> str:
    """What the agent asked: the text of the event that parked the task."""
    asked = [event for event in await client.get_events(todo.id) if event.event_type.endswith("_required")]
    return asked[-1].message or "" if asked else ""
