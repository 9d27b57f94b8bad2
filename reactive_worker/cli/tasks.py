"""`tasks`, `task`: what there is."""

from __future__ import annotations

import argparse

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import check_ids, whole_id
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.task_view import STATUSES, say_events, say_facts, say_result, say_tasks, todo_json
from reactive_worker.cli.with_client import Supabase, run_connected

#: Of a task's log, below its facts.
_LAST = 10


def add(commands: Commands) -> None:
    """Register the commands."""
    listing = add_command(commands, "tasks", _tasks, "list tasks, newest first")
    listing.add_argument(
        "--status", choices=STATUSES, metavar="STATUS", help=f"only these: {', '.join(STATUSES)}"
    )
    listing.add_argument("--agent-type", metavar="TYPE", help="only this agent type")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (50)")
    add_connection(listing)

    one = add_command(commands, "task", _task, "show one task with its last events")
    one.add_argument("id", metavar="ID", help="or its beginning")
    add_connection(one)


def _tasks(args: argparse.Namespace, console: Console) -> int:
    async def work(supabase: Supabase) -> int:
        todos = await supabase.client.list_tasks(args.status, args.agent_type, args.limit)
        for todo in todos:
            console.emit(todo_json(todo))
        if todos:
            say_tasks(console, todos)
        else:
            console.say("no tasks" + (f" with status {args.status}" if args.status else ""))
        return 0

    return run_connected(args, work)


def _task(args: argparse.Namespace, console: Console) -> int:
    check_ids([args.id])

    async def work(supabase: Supabase) -> int:
        client = supabase.client
        todo = await client.get_task(await whole_id(supabase.store, args.id))
        console.emit(todo_json(todo))
        if console.json:
            return 0
        say_facts(console, todo)
        console.say()
        events = await client.get_events(todo.id)
        say_events(console, events[-_LAST:], started=todo.created_at)
        say_result(console, todo, traceback=True)
        return 0

    return run_connected(args, work)
