"""`stats`: the whole system in figures."""

from __future__ import annotations

import argparse
from typing import Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command, add_connection
from reactive_worker.cli.pictures import bar, sparkline
from reactive_worker.cli.styled import Styled
from reactive_worker.cli.text import duration, number, object_of, plain, short
from reactive_worker.cli.with_client import Supabase, run_connected
from reactive_worker.errors import ConfigurationError

COUNTS = ("pending", "in_progress", "input_required", "completed", "failed", "cancelled", "total")
_BAR = 24


def add(commands: Commands) -> None:
    """Register the command."""
    stats = add_command(
        commands,
        "stats",
        _stats,
        "figures: tasks by status, how long they wait and run, why they fail",
    )
    stats.add_argument("--agent-type", metavar="TYPE", help="only this agent type")
    stats.add_argument(
        "--window",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how far back times and failures look (3600)",
    )
    add_connection(stats)


def _stats(args: argparse.Namespace, console: Console) -> int:
    if not 1 <= args.window <= 31_536_000:
        raise ConfigurationError("--window must be between 1 and 31536000 seconds (a year)")

    async def work(supabase: Supabase) -> int:
        stats = await supabase.monitor.get_system_stats(args.agent_type, window=args.window)
        console.emit(stats)
        say_stats(console, stats)
        return 0

    return run_connected(args, work)


def say_stats(console: Console, stats: dict[str, Any]) -> None:
    """The figures as people read them."""
    by_type = object_of(stats.get("by_agent_type"))
    # The database tells of the busiest types, and sums up the rest.
    others = object_of(stats.get("other_agent_types"))
    console.table(
        ("agent type", *(name.replace("_", " ") for name in COUNTS)),
        [
            *((short(name, 24), *_counts(counts)) for name, counts in sorted(by_type.items())),
            *([(_others(others), *_counts(others))] if others else []),
            (Styled("bold", "all"), *_counts(stats)),
        ],
        optional=("cancelled", "input required"),
    )
    console.say()
    for line in timing_lines(stats):
        console.say(line)
    say_failures(console, stats)


def _others(others: dict[str, Any]) -> Styled:
    count = int(number(others.get("agent_types")))
    return Styled("dim", f"({count:,} others)" if count else "(others)")


def _counts(counts: dict[str, Any]) -> list[Styled]:
    cells: list[Styled] = []
    for name in COUNTS:
        count = int(number(counts.get(f"{name}_tasks", 0)))
        cells.append(Styled("red" if name == "failed" and count else "", f"{count:,}"))
    return cells


def timing_lines(stats: dict[str, Any]) -> list[str]:
    """What a person wants to know of the recent past, a line each."""
    sampled = int(number(stats["sampled"]))
    lines = [
        f"oldest waits   {duration(stats['oldest_pending_seconds'])}",
        f"workers alive  {plain(stats['workers_alive'])}",
        f"completed      {number(stats['completed_per_minute']):g} a minute   "
        f"{sparkline(stats['completed_by_minute'])}  (the last 10 minutes)",
    ]
    if sampled:
        lines += [
            f"{name:<14} p50 {duration(stats[f'{key}_p50'])}   p95 {duration(stats[f'{key}_p95'])}"
            for name, key in (("tasks wait", "wait"), ("tasks run", "run"))
        ]
        lines[-1] += f"   (of {sampled:,} that ended within {duration(stats['window_seconds'])})"
    return lines


def say_failures(console: Console, stats: dict[str, Any]) -> None:
    """Why tasks failed, the most frequent cause first."""
    found: dict[str, Any] = stats["failures_by_cause"]
    causes = sorted(
        ((name, number(count)) for name, count in found.items()), key=lambda one: (-one[1], one[0])
    )
    if not causes:
        return
    console.say()
    console.say(f"failed within {duration(stats['window_seconds'])}, by cause")
    console.table(
        ("  cause", "tasks", ""),
        [
            (f"  {short(cause, 48)}", f"{int(count):,}", Styled("red", bar(count, causes[0][1], _BAR)))
            for cause, count in causes
        ],
    )
