"""`workers list|pause|resume|drain`: look at the fleet and steer it from outside."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console, age, short
from reactive_worker.cli.options import (
    Commands,
    add_command,
    add_common,
    add_connection,
    load_settings,
    quiet_logging,
)
from reactive_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from reactive_worker.store.store import TodoStore

_STATES = {
    "pause": ("paused", "claim nothing more until resumed; running tasks go on"),
    "resume": ("running", "claim again after a pause"),
    "drain": ("draining", "finish what runs, then stop"),
}


def add(commands: Commands) -> None:
    """Register the commands."""
    group = commands.add_parser(
        "workers", help="list, pause, resume or drain workers", description="List or steer workers."
    )
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = add_command(verbs, "list", _list, "list registered workers")
    add_connection(listing)
    for verb, (_, help) in _STATES.items():
        parser = add_command(verbs, verb, _steer, help)
        parser.add_argument("workers", metavar="WORKER", nargs="*", help="id, its beginning, or name")
        parser.add_argument("--all", action="store_true", help="every worker that is alive")
        parser.set_defaults(verb=verb)
        add_connection(parser)


def _run(args: argparse.Namespace, work: Callable[[TodoStore], Awaitable[int]]) -> int:
    quiet_logging(args)
    settings = load_settings(args)
    from reactive_worker.store.lazy import LazyStore

    async def main() -> int:
        lazy = LazyStore(settings)
        try:
            return await work(await lazy.get())
        finally:
            await lazy.aclose()

    return asyncio.run(main())


def _list(args: argparse.Namespace, console: Console) -> int:
    from reactive_worker.models import parse_time

    async def work(store: TodoStore) -> int:
        workers = await store.workers()
        for worker in workers:
            console.emit(worker)
        if not workers:
            console.say("no workers")
            return 0
        console.table(
            ("id", "name", "state", "push", "tasks", "started", "heartbeat", "agent types"),
            (
                (
                    str(worker["id"]),
                    short(worker["name"], 28),
                    _state(console, worker),
                    _push(console, worker),
                    f"{worker['in_progress']}/{worker['concurrency']}",
                    age(parse_time(worker["started_at"], "started_at")),
                    age(parse_time(worker["heartbeat_at"], "heartbeat_at")),
                    short(", ".join(worker["agent_types"]), 40),
                )
                for worker in workers
            ),
        )
        return 0

    return _run(args, work)


def _state(console: Console, worker: dict[str, Any]) -> str:
    if not worker["alive"]:
        return console.style("red", "lost")
    state = str(worker["desired_state"])
    return console.style("green" if state == "running" else "yellow", state)


def _push(console: Console, worker: dict[str, Any]) -> str:
    from reactive_worker.models import parse_time

    info: dict[str, Any] = worker.get("info") or {}
    state = str(info.get("push") or "-")
    way = f" ({info['push_mode']})" if info.get("push_mode") else ""
    since = f" for {age(parse_time(info['push_since'], 'push_since'))}" if info.get("push_since") else ""
    return console.style({"healthy": "green", "deaf": "red"}.get(state, "yellow"), state + way + since)


def _steer(args: argparse.Namespace, console: Console) -> int:
    if bool(args.workers) == bool(args.all):
        raise ConfigurationError("give one or more workers, or --all")
    state = _STATES[args.verb][0]

    async def work(store: TodoStore) -> int:
        known = await store.workers()
        chosen = [worker for worker in known if worker["alive"]] if args.all else _named(args.workers, known)
        for worker in chosen:
            answer = await store.set_worker_state(str(worker["id"]), state)
            console.emit(answer)
            console.say(f"{worker['id']}  {worker['name']}  {state}")
        if not chosen:
            console.say("no worker is alive")
        return 0

    return _run(args, work)


def _named(names: list[str], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = []
    for name in names:
        fits = [worker for worker in known if worker["name"] == name or str(worker["id"]).startswith(name)]
        if not fits:
            raise ConfigurationError(f"no worker {name!r}; see `reactive-worker workers list`")
        if len(fits) > 1:
            raise ConfigurationError(f"{name!r} fits {len(fits)} workers; give more of the id")
        chosen += fits
    return chosen
