"""`stats`: the whole system in figures."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from reactive_worker.cli.console import Console, duration
from reactive_worker.cli.options import Commands, add_command, add_connection, load_settings, quiet_logging
from reactive_worker.cli.pictures import bar, sparkline
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
    quiet_logging(args)
    settings = load_settings(args)
    from reactive_worker.client.monitor import Monitor

    async def main() -> dict[str, Any]:
        async with Monitor.from_settings(settings) as monitor:
            return await monitor.get_system_stats(args.agent_type, window=args.window)

    stats = asyncio.run(main())
    console.emit(stats)
    by_type: dict[str, dict[str, Any]] = stats.get("by_agent_type") or {}
    console.table(
        ("agent type", *(name.replace("_", " ") for name in COUNTS)),
        [
            *((name, *_counts(console, counts)) for name, counts in sorted(by_type.items())),
            (console.style("bold", "all"), *_counts(console, stats)),
        ],
    )
    console.say()
    for line in timing_lines(stats):
        console.say(line)
    for line in _failure_lines(console, stats):
        console.say(line)
    return 0


def _counts(console: Console, counts: dict[str, Any]) -> list[str]:
    cells: list[str] = []
    for name in COUNTS:
        count = int(counts.get(f"{name}_tasks", 0))
        text = f"{count:,}"
        cells.append(console.style("red", text) if name == "failed" and count else text)
    return cells


def timing_lines(stats: dict[str, Any]) -> list[str]:
    """What a person wants to know of the recent past, a line each."""
    lines = [
        f"oldest waits   {duration(stats['oldest_pending_seconds'])}",
        f"workers alive  {stats['workers_alive']}",
        f"completed      {stats['completed_per_minute']:g} a minute   "
        f"{sparkline(stats['completed_by_minute'])}  (the last 10 minutes)",
    ]
    if stats["sampled"]:
        lines += [
            f"{name:<14} p50 {duration(stats[f'{key}_p50'])}   p95 {duration(stats[f'{key}_p95'])}"
            for name, key in (("tasks wait", "wait"), ("tasks run", "run"))
        ]
        lines[-1] += f"   (of {stats['sampled']:,} that ended within {duration(stats['window_seconds'])})"
    return lines


def _failure_lines(console: Console, stats: dict[str, Any]) -> list[str]:
    causes = sorted(stats["failures_by_cause"].items(), key=lambda item: (-item[1], item[0]))
    if not causes:
        return []
    wide = max(len(cause) for cause, _ in causes)
    most = causes[0][1]
    return [
        "",
        f"failed within {duration(stats['window_seconds'])}, by cause",
        *(
            f"  {cause:<{wide}}  {count:>6,}  {console.style('red', bar(count, most, _BAR))}"
            for cause, count in causes
        ),
    ]
