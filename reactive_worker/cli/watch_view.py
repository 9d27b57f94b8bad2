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
WIDE = 132
#: Columns below which counts have short names.
MEDIUM = 100
#: Columns below which there are no bars, and of each worker only what matters most.
NARROW = 70
#: Rows below which the running tasks give way to the events.
LOW = 18
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
    people = min(len(snapshot.workers) or 1, rows) + 2
    busy = min(len(snapshot.running) or 1, rows) + 2
    head = _head(snapshot, width)
    # A blank line below, unless every line counts.
    top = 3 if isinstance(head, Group) and height >= LOW else 2
    parts = [
        Layout(head, size=top, name="head"),
        Layout(_tasks(snapshot, types=tasks - 3, width=width), size=tasks, name="tasks"),
    ]
    left = height - top - tasks
    if width >= WIDE:
        middle = max(people, busy)
        pair = Layout(size=middle, name="pair")
        pair.split_row(
            Layout(_workers(snapshot, middle - 2, width), size=_workers_width(snapshot)),
            Layout(_running(snapshot, middle - 2, width)),
        )
        parts.append(pair)
        left -= middle
    else:
        parts.append(Layout(_workers(snapshot, people - 2, width), size=people, name="workers"))
        left -= people
        if height >= LOW:
            parts.append(Layout(_running(snapshot, busy - 2, width), size=busy, name="running"))
            left -= busy
    parts.append(Layout(_events(snapshot, max(0, left - 1), width), name="events"))
    layout = Layout()
    layout.split_column(*parts)
    return layout


def _head(snapshot: Snapshot, width: int) -> RenderableType:
    """Two lines, the second one empty where one is enough."""
    line = Text("reactive-worker", style="bold")
    line.append(snapshot.at.astimezone().strftime("  %H:%M:%S  q ends"), style="dim")
    figures = Text()
    if snapshot.outage and snapshot.outage_since:
        since = snapshot.outage_since.astimezone().strftime("%H:%M:%S")
        gone = f"{since} ({age(snapshot.outage_since, snapshot.at)})"
        figures.append(f"cannot reach Supabase since {gone}: {snapshot.outage}", style="bold red")
    elif snapshot.stats:
        stats = snapshot.stats
        figures.append(f"{stats['completed_per_minute']:g} done a minute ")
        figures.append(sparkline(stats["completed_by_minute"]), style="green")
        if stats["sampled"]:
            p95 = "p95 " if width >= NARROW else ""
            for name, key in (("waits", "wait"), ("runs", "run")):
                slow = duration(stats[f"{key}_p95"])
                figures.append(f"   {name} {duration(stats[f'{key}_p50'])} ({p95}{slow})")
    if len(line) + 3 + figures.cell_len <= width:
        return line.append("   ").append_text(figures)
    for part in (line, figures):
        part.truncate(width, overflow="ellipsis")
    return Group(line, figures)


def _table(*columns: str | tuple[str, str], gap: int = 2, fill: bool = False) -> Table:
    """A table without lines; with `fill` its last column takes the room that is left, and alone is cut."""
    table = Table(box=None, pad_edge=False, expand=fill, header_style="dim", padding=(0, gap, 0, 0))
    for number, column in enumerate(columns, 1):
        name, justify = column if isinstance(column, tuple) else (column, "left")
        table.add_column(
            name,
            justify=justify,  # pyright: ignore[reportArgumentType] - "left" or "right"
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if fill and number == len(columns) else None,
        )
    return table


def _tasks(snapshot: Snapshot, *, types: int, width: int) -> RenderableType:
    names = [name.replace("_", " ") for name in COUNTS] if width >= MEDIUM else _SHORT
    narrow = width < NARROW
    columns = ("tasks", *((name, "right") for name in names), *(() if narrow else ("",)))
    table = _table(*columns, gap=1 if narrow else 2, fill=not narrow)
    longest = _BAR if width >= MEDIUM else _BAR // 2
    by_type: dict[str, dict[str, Any]] = snapshot.stats.get("by_agent_type") or {}

    def open_tasks(counts: dict[str, Any]) -> int:
        return sum(int(counts[f"{name}_tasks"]) for name in ("pending", "in_progress", "input_required"))

    # The busiest ones, where not all have room.
    ranked = sorted(by_type.items(), key=lambda item: (-open_tasks(item[1]), item[0]))
    most = max((open_tasks(counts) for counts in by_type.values()), default=0)
    for name, counts in ranked[:types]:
        pending = bar(int(counts["pending_tasks"]), most, longest)
        picture = Text(
            bar(int(counts["in_progress_tasks"]), most, longest), style=STATUS_STYLE["in_progress"]
        )
        picture.append(pending, style=STATUS_STYLE["pending"])
        label = short(name, max(6, width - 42) if narrow else 28 if width >= MEDIUM else 16)
        table.add_row(label, *_counts(counts, width), *(() if narrow else (picture,)))
    oldest = snapshot.stats["oldest_pending_seconds"]
    note = "" if oldest is None else f"oldest waits {duration(oldest)}"
    more = f" (+{len(ranked) - types}{'' if narrow else ' types'})" if len(ranked) > types else ""
    last = () if narrow else (Text(note, style="dim"),)
    table.add_row(Text(f"all{more}", style="bold"), *_counts(snapshot.stats, width), *last)
    return table


def _counts(counts: dict[str, Any], width: int) -> list[Text]:
    return [
        Text(
            _count(int(counts[f"{name}_tasks"]), width),
            style=STATUS_STYLE.get(name, "") if counts[f"{name}_tasks"] else "dim",
        )
        for name in COUNTS
    ]


def _count(number: int, width: int) -> str:
    """Whole where there is room, else in thousands and millions."""
    if width >= MEDIUM or number < 10_000:
        return f"{number:,}" if width >= NARROW else str(number)
    return f"{number // 1000}k" if number < 1_000_000 else f"{number / 1_000_000:.3g}M"


def _workers_width(snapshot: Snapshot) -> int:
    """Columns the workers take where nothing of them is left out."""
    names = max((len(_name(worker)) for worker in snapshot.workers), default=0)
    tasks = max((len(_load(worker)) for worker in snapshot.workers), default=0)
    return max(names, len(f"workers ({len(snapshot.workers)})")) + max(tasks, 5) + 64


def _name(worker: dict[str, Any]) -> str:
    return short(worker["name"] or worker["id"], 26)


def _load(worker: dict[str, Any]) -> str:
    return f"{worker['in_progress']}/{worker['concurrency']}"


def _workers(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    narrow = width < NARROW
    columns = (f"workers ({len(snapshot.workers)})", "state", "push", ("tasks", "right"))
    table = _table(*columns, *(() if narrow else ("", "heartbeat")), gap=1 if narrow else 2)
    shown = rows if len(snapshot.workers) <= rows else rows - 1
    for worker in snapshot.workers[:shown]:
        info: dict[str, Any] = worker.get("info") or {}
        push = str(info.get("push") or "-")
        state = "lost" if not worker["alive"] else str(worker["desired_state"])
        way = f" ({info['push_mode']})" if info.get("push_mode") and width >= MEDIUM else ""
        more = (
            Text(bar(worker["in_progress"], worker["concurrency"], 10), style="blue"),
            age(parse_time(worker["heartbeat_at"], "heartbeat_at"), snapshot.at),
        )
        table.add_row(
            short(_name(worker), max(8, width - 34)),
            Text(state, style={"running": "green", "lost": "red"}.get(state, "yellow")),
            Text(push + way, style=_PUSH_STYLE.get(push, "yellow")),
            _load(worker),
            *(() if narrow else more),
        )
    if len(snapshot.workers) > shown:
        table.add_row(Text(f"and {len(snapshot.workers) - shown} more", style="dim"))
    if not snapshot.workers:
        table.add_row(Text("none is registered", style="yellow"))
    return table


def _running(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    total = snapshot.stats["in_progress_tasks"]
    table = _table(f"running ({total:,})", ("for", "right"), "agent type", "prompt", fill=True)
    for todo in snapshot.running[:rows]:
        table.add_row(
            Text(todo.id[:8], style="dim"),
            age(todo.started_at, snapshot.at),
            short(todo.agent_type, 20 if width >= NARROW else 10),
            short(todo.prompt, width),
        )
    return table


def _events(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    narrow = width < NARROW
    columns = ("events",) if narrow else ("events", "task", ("seq", "right"))
    table = _table(*columns, "", "", fill=True, gap=1 if narrow else 2)
    for event in list(snapshot.events)[-rows:] if rows else []:
        when = (
            event.created_at.astimezone().strftime("%H:%M:%S.%f")[: 8 if narrow else 12]
            if event.created_at
            else ""
        )
        which = () if narrow else (Text(event.todolist_id[:8], style="dim"), str(event.seq or ""))
        table.add_row(
            Text(when, style="dim"),
            *which,
            Text(event.event_type, style=EVENT_STYLE.get(event.event_type, "")),
            short(event.message or "", width),
        )
    return table
