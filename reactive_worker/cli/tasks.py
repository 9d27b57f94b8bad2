"""`submit`, `tasks`, `task`, `cancel`, `retry`, `answer`, `steer`: what a client does, from the shell."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console, age, duration, short
from reactive_worker.cli.events import say_event
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.with_client import run_with_client
from reactive_worker.errors import ConfigurationError, InvalidTaskError

if TYPE_CHECKING:
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.models import Todo

STATUSES = ("pending", "in_progress", "input_required", "completed", "failed", "cancelled")


def add(commands: Commands) -> None:
    """Register the commands."""
    _add_submit(commands)
    listing = add_command(commands, "tasks", _tasks, "list tasks, newest first")
    listing.add_argument("--status", choices=STATUSES, help="only these; `failed` is the dead-letter list")
    listing.add_argument("--agent-type", metavar="TYPE", help="only this agent type")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (50)")
    add_connection(listing)

    one = add_command(commands, "task", _task, "show one task with its last events")
    one.add_argument("id", metavar="ID")
    add_connection(one)

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


def _add_submit(commands: Commands) -> None:
    submit = add_command(
        commands,
        "submit",
        _submit,
        "submit a task and print its id",
        epilog="With --wait the exit code is 0 only when the task completed.",
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

    async def work(client: TaskClient) -> int:
        ids = await client.submit_many(tasks)
        if not args.wait and args.wait_timeout is None:
            for id in ids:
                console.emit({"id": id})
                console.say(id)
            return 0
        if console.is_terminal:
            console.note("\n".join(f"submitted {id}" for id in ids))
        ended = await asyncio.gather(
            *(client.wait_for_completion(id, args.wait_timeout, return_when_parked=True) for id in ids)
        )
        for todo in ended:
            console.emit(todo_json(todo))
            say_result(console, todo)
        return 0 if all(todo.agent_status == "completed" for todo in ended) else 1

    return run_with_client(args, work)


def _one(args: argparse.Namespace) -> dict[str, Any]:
    *agent_type, prompt = args.words
    task = {
        "agent_type": agent_type[0] if agent_type else None,
        "prompt": sys.stdin.read() if prompt == "-" else prompt,
        "input_data": _json("--data", args.data),
        "priority": args.priority,
        "delay": args.delay,
        "idempotency_key": args.key,
        "context_id": args.context,
        "max_failures": args.max_failures,
        "timeout": args.timeout,
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
        tasks.append(task)  # pyright: ignore[reportUnknownArgumentType]
    return tasks


def read_text(file: str) -> str:
    """A file's text; raises ConfigurationError saying why not."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8 text") from None


def _json(option: str, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(read_text(value[1:]) if value.startswith("@") else value)
    except ValueError as error:
        raise ConfigurationError(f"{option} is not JSON: {error}") from None


def _tasks(args: argparse.Namespace, console: Console) -> int:
    async def work(client: TaskClient) -> int:
        todos = await client.list_tasks(args.status, args.agent_type, args.limit)
        for todo in todos:
            console.emit(todo_json(todo))
        if not todos:
            console.say("no tasks" + (f" with status {args.status}" if args.status else ""))
        else:
            console.table(
                ("id", "agent type", "status", "prio", "runs", "age", "prompt"),
                (
                    (
                        todo.id,
                        short(todo.agent_type, 24),
                        console.status(todo.agent_status),
                        str(todo.priority),
                        str(todo.attempt),
                        age(todo.created_at),
                        short(todo.prompt, 60),
                    )
                    for todo in todos
                ),
            )
        return 0

    return run_with_client(args, work)


def _task(args: argparse.Namespace, console: Console) -> int:

    async def work(client: TaskClient) -> int:
        todo = await client.get_task(args.id)
        console.emit(todo_json(todo))
        if console.json:
            return 0
        _say_facts(console, todo)
        console.say()
        events = await client.get_events(todo.id)
        for event in events[-10:]:
            say_event(console, event, started=todo.created_at)
        say_result(console, todo)
        return 0

    return run_with_client(args, work)


def _say_facts(console: Console, todo: Todo) -> None:
    ran = (
        (todo.completed_at - todo.started_at).total_seconds()
        if todo.completed_at is not None and todo.started_at is not None
        else None
    )
    facts = {
        "task": todo.id,
        "agent type": todo.agent_type,
        "status": console.status(todo.agent_status) + (f"  ({todo.task_state})" if todo.task_state else ""),
        "prompt": short(todo.prompt, 100),
        "input": short(json.dumps(todo.input_data, ensure_ascii=False), 100)
        if todo.input_data is not None
        else "",
        "priority": str(todo.priority),
        "submitted": f"{todo.created_at.isoformat(timespec='seconds')}  ({age(todo.created_at)} ago)",
        "ran": duration(ran) if ran is not None else "",
        "runs": f"{todo.attempt}, of which failed: {todo.failures} (at most {todo.max_failures})",
        "worker": todo.worker_id or "",
        "context": todo.context_id or "",
        "key": todo.idempotency_key or "",
    }
    for name, value in facts.items():
        if value:
            console.say(f"{console.style('dim', f'{name:<11}')} {value}")


def say_result(console: Console, todo: Todo) -> None:
    """Print what a task answered, asks or failed with."""
    if todo.agent_status == "input_required":
        console.say()
        console.say(f"waits for an answer: reactive-worker answer {todo.id} TEXT")
    if todo.error:
        error: Any = todo.error
        named: dict[str, Any] = error if isinstance(error, dict) else {"message": error}  # pyright: ignore[reportUnknownVariableType]
        console.say()
        console.say(console.style("red", f"{named.get('type', 'error')}: {named.get('message', '')}"))
    elif todo.agent_output is not None:
        console.say()
        output: Any = todo.agent_output
        text = output.get("text") if isinstance(output, dict) else None  # pyright: ignore
        console.say(str(text) if text else json.dumps(output, ensure_ascii=False, indent=2))  # pyright: ignore


def _each(
    args: argparse.Namespace, console: Console, what: Callable[[TaskClient, str], Awaitable[Todo]]
) -> int:
    async def work(client: TaskClient) -> int:
        for id in args.ids:
            todo = await what(client, id)
            console.emit(todo_json(todo))
            asked = todo.cancel_requested_at is not None and not todo.is_finished
            console.say(f"{todo.id}  {console.status(todo.agent_status)}{', told to stop' if asked else ''}")
        return 0

    return run_with_client(args, work)


def _cancel(args: argparse.Namespace, console: Console) -> int:
    return _each(args, console, lambda client, id: client.cancel_task(id, args.reason))


def _retry(args: argparse.Namespace, console: Console) -> int:
    return _each(args, console, lambda client, id: client.retry_task(id))


def _answer(args: argparse.Namespace, console: Console) -> int:
    content = _content(args)
    args.ids = [args.id]
    return _each(args, console, lambda client, id: client.answer_task(id, content))


def _steer(args: argparse.Namespace, console: Console) -> int:
    content = _content(args)

    async def work(client: TaskClient) -> int:
        result = await client.steer_task(args.id, content, wait=args.wait)
        console.emit({"id": args.id, "message_id": result.id, "state": result.state, "reason": result.reason})
        console.say(f"{args.id}  {result.state}{f': {result.reason}' if result.reason else ''}")
        return 1 if result.state == "refused" else 0

    return run_with_client(args, work)


def _content(args: argparse.Namespace) -> Any:
    if (args.text is None) == (args.data is None):
        raise ConfigurationError("give either a TEXT or --data JSON")
    if args.data is not None:
        return _json("--data", args.data)
    return sys.stdin.read() if args.text == "-" else args.text


def todo_json(todo: Todo) -> dict[str, Any]:
    """The row as the table holds it."""
    return dict(todo)
