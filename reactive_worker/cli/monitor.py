"""`stats`: the whole system in figures."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from reactive_worker.cli.console import Console, duration
from reactive_worker.cli.options import Commands, add_command, add_connection, load_settings, quiet_logging

_COUNTS = ("pending", "in_progress", "input_required", "completed", "failed", "cancelled", "total")


def add(commands: Commands) -> None:
    """Register the command."""
    stats = add_command(commands, "stats", _stats, "count tasks by status and agent type")
    stats.add_argument("--agent-type", metavar="TYPE", help="only this agent type")
    add_connection(stats)


def _stats(args: argparse.Namespace, console: Console) -> int:
    quiet_logging(args)
    settings = load_settings(args)
    from reactive_worker.monitor import Monitor

    async def main() -> dict[str, Any]:
        async with Monitor.from_settings(settings) as monitor:
            return await monitor.get_system_stats(args.agent_type)

    stats = asyncio.run(main())
    console.emit(stats)
    by_type: dict[str, dict[str, Any]] = stats.get("by_agent_type") or {}
    console.table(
        ("agent type", *(name.replace("_", " ") for name in _COUNTS)),
        [
            *((name, *_counts(console, counts)) for name, counts in sorted(by_type.items())),
            (console.style("bold", "all"), *_counts(console, stats)),
        ],
    )
    console.say()
    console.say(
        f"oldest pending task waits: {duration(stats['oldest_pending_seconds'])}    "
        f"workers alive: {stats['workers_alive']}"
    )
    return 0


def _counts(console: Console, counts: dict[str, Any]) -> list[str]:
    cells: list[str] = []
    for name in _COUNTS:
        count = int(counts.get(f"{name}_tasks", 0))
        text = f"{count:,}"
        cells.append(console.style("red", text) if name == "failed" and count else text)
    return cells
