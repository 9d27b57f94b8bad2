"""`submit`: one task or many, and what comes of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.inputs import read_json, read_text
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.result_stream import ResultStream
from reactive_worker.cli.served import unserved
from reactive_worker.cli.task_view import say_result, todo_json
from reactive_worker.cli.with_client import Supabase, run_connected
from reactive_worker.errors import ConfigurationError, InvalidTaskError

if TYPE_CHECKING:
    from reactive_worker.models import Todo

_EPILOG = """\
With --wait the id is told on standard error at once, and what the agent
answers is printed while it comes. The exit code is 0 only when the task
completed. Ctrl-C ends the waiting, not the task.
"""

_EXIT_INTERRUPTED = 130


def add(commands: Commands) -> None:
    """Register the command."""
    submit = add_command(
        commands,
        "submit",
        _submit,
        "submit a task and print its id",
        epilog=_EPILOG,
    )
    submit.add_argument(
        "words",
        metavar="[AGENT_TYPE] PROMPT",
        nargs="*",
        help="which workers may run it (DEFAULT_AGENT_TYPE), and what the agent is asked; - reads stdin",
    )
    submit.add_argument("--data", metavar="JSON", help="input_data; @FILE reads a file")
    submit.add_argument("--priority", type=int, default=0, metavar="N", help="higher runs first (0)")
    submit.add_argument("--delay", type=float, metavar="SECONDS", help="due so much later")
    submit.add_argument("--key", metavar="TEXT", help="idempotency key: submitting again returns the same id")
    submit.add_argument("--context", metavar="ID", help="A2A context it belongs to")
    submit.add_argument("--max-failures", type=int, metavar="N", help="failed runs until it is failed (3)")
    submit.add_argument("--timeout", type=int, metavar="SECONDS", help="limit of one run")
    submit.add_argument("--owner", metavar="USER_ID", help="the user whose task it is (secret key only)")
    submit.add_argument(
        "--batch", metavar="FILE", help="submit many: JSON lines with agent_type, prompt, ...; - reads stdin"
    )
    submit.add_argument("--wait", action="store_true", help="wait until it has ended and print the result")
    submit.add_argument(
        "--wait-timeout", type=float, metavar="SECONDS", help="wait at most so long (implies --wait)"
    )
    add_connection(submit)


def _submit(args: argparse.Namespace, console: Console) -> int:
    if bool(args.words) == (args.batch is not None) or len(args.words) > 2:
        raise ConfigurationError("give either [AGENT_TYPE] PROMPT (quoted) or --batch FILE")
    # Tasks are read before anything connects: a typing error needs no network to be told.
    tasks = _batch(args.batch) if args.batch is not None else [_one(args)]
    for task in tasks:
        if "agent_type" not in task:
            task["agent_type"] = _default_agent_type(args)
    waits = args.wait or args.wait_timeout is not None
    ids: list[str] = []

    async def work(supabase: Supabase) -> int:
        ids.extend(await supabase.client.submit_many(tasks))
        for id in ids:
            if waits:
                console.note(f"submitted {id}")
            else:
                console.emit({"id": id})
                console.say(id)
        for warning in await unserved(supabase.store, {str(task["agent_type"]) for task in tasks}):
            console.note(warning)
        if not waits:
            return 0
        streamed = len(ids) == 1 and not console.json
        ended = (
            [await _follow(supabase, console, ids[0], args)] if streamed else await _all(supabase, ids, args)
        )
        if not streamed:
            for todo in ended:
                console.emit(todo_json(todo))
                say_result(console, todo)
        return 0 if all(todo.agent_status == "completed" for todo in ended) else 1

    try:
        return run_connected(args, work)
    except KeyboardInterrupt:
        if ids and waits:
            _say_how_to_go_on(console, ids)
        return _EXIT_INTERRUPTED


async def _all(supabase: Supabase, ids: Sequence[str], args: argparse.Namespace) -> list[Todo]:
    return list(
        await asyncio.gather(
            *(
                supabase.client.wait_for_completion(id, args.wait_timeout, return_when_parked=True)
                for id in ids
            )
        )
    )


async def _follow(supabase: Supabase, console: Console, id: str, args: argparse.Namespace) -> Todo:
    """Wait for one task, printing what it answers while it comes."""
    client, stream = supabase.client, ResultStream(console)

    async def follow() -> None:
        async for event in client.stream_events(id):
            stream.hear(event)

    following = asyncio.create_task(follow(), name="events of the submitted task")
    try:
        todo = await client.wait_for_completion(id, args.wait_timeout, return_when_parked=True)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    # The row has ended, so the log holds all of it; what following has not heard yet is read.
    for event in await client.get_events(id, stream.last):
        stream.hear(event)
    stream.finish(todo)
    return todo


def _say_how_to_go_on(console: Console, ids: Sequence[str]) -> None:
    told = ids[0] if len(ids) == 1 else f"{ids[0]} ... ({len(ids)} tasks)"
    console.note(f"no longer waiting; {told} {'goes' if len(ids) == 1 else 'go'} on. To")
    console.note(f"  wait again:  reactive-worker wait {' '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}")
    console.note(f"  follow it:   reactive-worker events --tail {ids[0]}")
    console.note(f"  end it:      reactive-worker cancel {ids[0]}")


def _one(args: argparse.Namespace) -> dict[str, Any]:
    *agent_type, prompt = args.words
    task = {
        "agent_type": agent_type[0] if agent_type else None,
        "prompt": sys.stdin.read() if prompt == "-" else prompt,
        "input_data": read_json("--data", args.data),
        "priority": args.priority,
        "delay": args.delay,
        "idempotency_key": args.key,
        "context_id": args.context,
        "max_failures": args.max_failures,
        "timeout": args.timeout,
        "owner_id": args.owner,
    }
    return {name: value for name, value in task.items() if value is not None}


def _default_agent_type(args: argparse.Namespace) -> str:
    from reactive_worker.settings import Settings

    agent_type = Settings.load(args.env_file).agent_type
    if not agent_type:
        raise ConfigurationError(
            "no agent type: `reactive-worker submit AGENT_TYPE PROMPT`, or set DEFAULT_AGENT_TYPE"
        )
    return agent_type


def _batch(file: str) -> list[dict[str, Any]]:
    text = sys.stdin.read() if file == "-" else read_text(file)
    tasks: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            task = json.loads(line)
        except ValueError as error:
            raise InvalidTaskError(f"{file}, line {number}: not JSON: {error}") from None
        if not isinstance(task, dict):
            raise InvalidTaskError(f"{file}, line {number}: expected an object like {{'prompt': '...'}}")
        tasks.append(task)  # pyright: ignore[reportUnknownArgumentType] - JSON, checked later
    return tasks
