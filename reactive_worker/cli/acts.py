"""`cancel`, `retry`, `answer`, `steer`: what is done to a task from the shell."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import check_ids, whole_id, whole_ids
from reactive_worker.cli.inputs import content
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.styled import status
from reactive_worker.cli.task_view import todo_json
from reactive_worker.cli.with_client import Supabase, run_connected

if TYPE_CHECKING:
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.models import Todo


def add(commands: Commands) -> None:
    """Register the commands."""
    cancel = add_command(commands, "cancel", _cancel, "cancel waiting, parked or running tasks")
    cancel.add_argument("ids", metavar="ID", nargs="+")
    cancel.add_argument("--reason", metavar="TEXT", help="stored with the event")
    add_connection(cancel)

    retry = add_command(commands, "retry", _retry, "put failed or cancelled tasks back to pending")
    retry.add_argument("ids", metavar="ID", nargs="+")
    add_connection(retry)

    answer = add_command(commands, "answer", _answer, "answer a task that waits for input")
    answer.add_argument("id", metavar="ID")
    answer.add_argument("text", metavar="TEXT", nargs="?", help="the answer; - reads standard input")
    answer.add_argument("--data", metavar="JSON", help="answer with JSON instead of text; @FILE reads a file")
    add_connection(answer)

    steer = add_command(
        commands,
        "steer",
        _steer,
        "say something to an agent while it runs",
        epilog="The exit code is 1 when it was refused. Applied later than --wait is no failure.",
    )
    steer.add_argument("id", metavar="ID")
    steer.add_argument("text", metavar="TEXT", nargs="?", help="what to say; - reads standard input")
    steer.add_argument("--data", metavar="JSON", help="say JSON instead of text; @FILE reads a file")
    steer.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="for it to be applied or refused (10)"
    )
    add_connection(steer)


def _each(
    args: argparse.Namespace, console: Console, what: Callable[[TaskClient, str], Awaitable[Todo]]
) -> int:
    check_ids(args.ids)

    async def work(supabase: Supabase) -> int:
        for id in await whole_ids(supabase.store, args.ids):
            todo = await what(supabase.client, id)
            console.emit(todo_json(todo))
            asked = todo.cancel_requested_at is not None and not todo.is_finished
            console.say(f"{todo.id}  ", status(todo.agent_status), ", told to stop" if asked else "")
        return 0

    return run_connected(args, work)


def _cancel(args: argparse.Namespace, console: Console) -> int:
    return _each(args, console, lambda client, id: client.cancel_task(id, args.reason))


def _retry(args: argparse.Namespace, console: Console) -> int:
    return _each(args, console, lambda client, id: client.retry_task(id))


def _answer(args: argparse.Namespace, console: Console) -> int:
    answer = content(args.text, args.data)
    args.ids = [args.id]
    return _each(args, console, lambda client, id: client.answer_task(id, answer))


def _steer(args: argparse.Namespace, console: Console) -> int:
    message = content(args.text, args.data)
    check_ids([args.id])

    async def work(supabase: Supabase) -> int:
        id = await whole_id(supabase.store, args.id)
        result = await supabase.client.steer_task(id, message, wait=args.wait)
        console.emit({"id": id, "message_id": result.id, "state": result.state, "reason": result.reason})
        console.say(f"{id}  {result.state}{f': {result.reason}' if result.reason else ''}")
        return 1 if result.state == "refused" else 0

    return run_connected(args, work)
