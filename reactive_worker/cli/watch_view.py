"""What `watch` shows, drawn from one snapshot: no I/O and no clock, so that it can be looked at in a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.table import Table
from rich.text import Text

from reactive_worker.cli.console import STATUS_STYLE, age, duration, short
from reactive_worker.cli.events import EVENT_STYLE
from reactive_worker.cli.monitor import COUNTS
from reactive_worker.cli.pictures import bar, sparkline
from reactive_worker.models import Todo, TodoEvent, parse_time

#: Columns from which workers and running tasks stand side by side.
WIDE = 120
#: Columns below which counts have short names.
MEDIUM = 100
_BAR = 20
_SHORT = ("pend", "run", "ask", "done", "fail", "canc", "all")
_PUSH_STYLE = {"healthy": "green", "deaf": "red"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one picture is made of."""

    at: datetime
    stats: dict[str, Any] = field(default_factory=dict[str, Any])
    workers: Sequence[dict[str, Any]] = ()
    running: Sequence[Todo] = ()
    #: Oldest first.
    events: Sequence[TodoEvent] = ()
    #: What is wrong with Supabase, and since when; the figures are from before then.
    outage: str = ""
    outage_since: datetime | None = None


def draw(snapshot: Snapshot, *, width: int, height: int) -> RenderableType:
    """The whole screen.

    Parameters
    ----------
    snapshot:
        What to show.
    width, height:
        Of the terminal, in characters. What does not fit is cut off, the newest events last of all.
    """
    if not snapshot.stats:
        return Group(_head(snapshot, width), Text("looking ...", style="dim"))
    types = len(snapshot.stats.get("by_agent_type") or {})
    tasks = min(types, max(1, height // 5)) + 3
    rows = max(1, (height - tasks - 3) // 3)
    busy = max(len(snapshot.workers), min(len(snapshot.running), rows), 1) + 2
    middle = min(busy, rows + 2)
    layout = Layout()
    people = min(len(snapshot.workers) or 1, rows) + 2
    parts = [
        Layout(_head(snapshot, width), size=2, name="head"),
        Layout(_tasks(snapshot, types=tasks - 3, wide=width >= MEDIUM), size=tasks, name="tasks"),
    ]
    if width >= WIDE:
        pair = Layout(size=middle, name="pair")
        pair.split_row(
            Layout(_workers(snapshot, middle - 2)), Layout(_running(snapshot, middle - 2, width // 2))
        )
        parts.append(pair)
        left = height - 2 - tasks - middle
    else:
        parts.append(Layout(_workers(snapshot, people - 2), size=people, name="workers"))
        parts.append(Layout(_running(snapshot, middle - 2, width), size=middle, name="running"))
        left = height - 2 - tasks - middle - people
    parts.append(Layout(_events(snapshot, max(0, left - 1), width), name="events"))
    layout.split_column(*parts)
    return layout


def _head(snapshot: Snapshot, width: int) -> RenderableType:
    line = Text("reactive-worker", style="bold")
    line.append(snapshot.at.astimezone().strftime("  %H:%M:%S  q ends"), style="dim")
    if snapshot.outage:
        since = age(snapshot.outage_since, snapshot.at)
        line.append(f"  cannot reach Supabase for {since}: {snapshot.outage}", style="bold red")
    elif snapshot.stats:
        stats = snapshot.stats
        line.append(f"   {stats['completed_per_minute']:g} done a minute ")
        line.append(sparkline(stats["completed_by_minute"]), style="green")
        if stats["sampled"]:
            line.append(f"   waits {duration(stats['wait_p50'])} (p95 {duration(stats['wait_p95'])})")
            line.append(f"   runs {duration(stats['run_p50'])} (p95 {duration(stats['run_p95'])})")
    line.truncate(width, overflow="ellipsis")
    return line


def _table(*columns: str | tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, expand=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        name, justify = column if isinstance(column, tuple) else (column, "left")
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # pyright: ignore[reportArgumentType] - "left" or "right"
    return table


def _tasks(snapshot: Snapshot, *, types: int, wide: bool) -> RenderableType:
    names = [name.replace("_", " ") for name in COUNTS] if wide else _SHORT
    table = _table("tasks", *((name, "right") for name in names), "")
    by_type: dict[str, dict[str, Any]] = snapshot.stats.get("by_agent_type") or {}

    def open_tasks(counts: dict[str, Any]) -> int:
        return sum(int(counts[f"{name}_tasks"]) for name in ("pending", "in_progress", "input_required"))

    # The busiest ones, where not all have room.
    ranked = sorted(by_type.items(), key=lambda item: (-open_tasks(item[1]), item[0]))
    most = max((open_tasks(counts) for counts in by_type.values()), default=0)
    for name, counts in ranked[:types]:
        pending = bar(int(counts["pending_tasks"]), most, _BAR)
        picture = Text(bar(int(counts["in_progress_tasks"]), most, _BAR), style=STATUS_STYLE["in_progress"])
        picture.append(pending, style=STATUS_STYLE["pending"])
        table.add_row(short(name, 28), *_counts(counts), picture)
    oldest = snapshot.stats["oldest_pending_seconds"]
    note = "" if oldest is None else f"oldest waits {duration(oldest)}"
    more = f" (+{len(ranked) - types} types)" if len(ranked) > types else ""
    table.add_row(Text(f"all{more}", style="bold"), *_counts(snapshot.stats), Text(note, style="dim"))
    return table


def _counts(counts: dict[str, Any]) -> list[Text]:
    return [
        Text(
            f"{counts[f'{name}_tasks']:,}",
            style=STATUS_STYLE.get(name, "") if counts[f"{name}_tasks"] else "dim",
        )
        for name in COUNTS
    ]


def _workers(snapshot: Snapshot, rows: int) -> RenderableType:
    table = _table(f"workers ({len(snapshot.workers)})", "state", "push", ("tasks", "right"), "", "heartbeat")
    for worker in snapshot.workers[:rows]:
        info: dict[str, Any] = worker.get("info") or {}
        push = str(info.get("push") or "-")
        state = "lost" if not worker["alive"] else str(worker["desired_state"])
        way = f" ({info['push_way']})" if info.get("push_way") else ""
        table.add_row(
            short(worker["name"] or worker["id"], 26),
            Text(state, style={"running": "green", "lost": "red"}.get(state, "yellow")),
            Text(push + way, style=_PUSH_STYLE.get(push, "yellow")),
            f"{worker['in_progress']}/{worker['concurrency']}",
            Text(bar(worker["in_progress"], worker["concurrency"], 10), style="blue"),
            age(parse_time(worker["heartbeat_at"], "heartbeat_at"), snapshot.at),
        )
    if not snapshot.workers:
        table.add_row(Text("none is registered", style="yellow"))
    return table


def _running(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    total = snapshot.stats["in_progress_tasks"]
    table = _table(f"running ({total:,})", ("for", "right"), "agent type", "prompt")
    for todo in snapshot.running[:rows]:
        table.add_row(
            Text(todo.id[:8], style="dim"),
            age(todo.started_at, snapshot.at),
            short(todo.agent_type, 20),
            short(todo.prompt, max(10, width - 50)),
        )
    return table


def _events(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    table = _table("events", "task", ("seq", "right"), "", "")
    for event in list(snapshot.events)[-rows:] if rows else []:
        when = event.created_at.astimezone().strftime("%H:%M:%S.%f")[:-3] if event.created_at else ""
        table.add_row(
            Text(when, style="dim"),
            Text(event.todolist_id[:8], style="dim"),
            str(event.seq or ""),
            Text(event.event_type, style=EVENT_STYLE.get(event.event_type, "")),
            short(event.message or "", max(10, width - 62)),
        )
    return table
