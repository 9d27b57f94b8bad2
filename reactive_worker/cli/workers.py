"""`workers list|pause|resume|drain`: look at the fleet and steer it from outside."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.ids import brief
from reactive_worker.cli.options import Commands, add_command, add_common, add_connection
from reactive_worker.cli.styled import Styled
from reactive_worker.cli.text import age_of, plain, short, text_of
from reactive_worker.cli.with_client import Supabase, run_connected
from reactive_worker.errors import ConfigurationError

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


def _list(args: argparse.Namespace, console: Console) -> int:
    async def work(supabase: Supabase) -> int:
        workers = await supabase.store.workers()
        for worker in workers:
            console.emit(worker)
        if workers:
            say_workers(console, workers)
        else:
            console.say("no workers")
        return 0

    return run_connected(args, work)


def say_workers(console: Console, workers: Sequence[dict[str, Any]]) -> None:
    """A table of workers as `list_workers` tells of them."""
    ids = brief([str(worker["id"]) for worker in workers]) if console.is_terminal else {}
    console.table(
        ("id", "name", "state", "push", "tasks", "started", "heartbeat", "agent types"),
        [
            (
                ids.get(str(worker["id"]), str(worker["id"])),
                short(worker["name"] or "", 28),
                _state(worker),
                _push(worker),
                f"{plain(worker['in_progress'])}/{plain(worker['concurrency'])}",
                age_of(worker["started_at"]),
                age_of(worker["heartbeat_at"]),
                short(", ".join(map(plain, worker["agent_types"] or ())), console.columns(40)),
            )
            for worker in workers
        ],
        optional=("started", "heartbeat"),
    )


def _state(worker: dict[str, Any]) -> Styled:
    if not worker["alive"]:
        return Styled("red", "lost")
    state = plain(worker["desired_state"])
    return Styled("green" if state == "running" else "yellow", state)


def _push(worker: dict[str, Any]) -> Styled:
    info = worker.get("info")
    state = text_of(info, "push") or "-"
    way = f" ({text_of(info, 'push_mode')})" if text_of(info, "push_mode") else ""
    since = f" for {age_of(text_of(info, 'push_since'))}" if text_of(info, "push_since") else ""
    return Styled({"healthy": "green", "deaf": "red"}.get(state, "yellow"), short(state + way + since, 40))


def _steer(args: argparse.Namespace, console: Console) -> int:
    if bool(args.workers) == bool(args.all):
        raise ConfigurationError("give one or more workers, or --all")
    state = _STATES[args.verb][0]

    async def work(supabase: Supabase) -> int:
        known = await supabase.store.workers()
        chosen = [worker for worker in known if worker["alive"]] if args.all else _named(args.workers, known)
        for worker in chosen:
            answer = await supabase.store.set_worker_state(str(worker["id"]), state)
            console.emit(answer)
            console.say(f"{worker['id']}  {worker['name']}  {state}")
        if not chosen:
            console.say("no worker is alive")
        return 0

    return run_connected(args, work)


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
