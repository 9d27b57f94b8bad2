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

from reactive_worker.access.safe_text import safe_text
from reactive_worker.cli.monitor import COUNTS
from reactive_worker.cli.pictures import bar, sparkline
from reactive_worker.cli.styled import STATUS_STYLE
from reactive_worker.cli.task_view import EVENT_STYLE
from reactive_worker.cli.text import age, age_of, clock, duration, number, object_of, plain, short, text_of
from reactive_worker.models import Todo, TodoEvent

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
        figures.append(f"cannot reach Supabase since {gone}: {safe_text(snapshot.outage)}", style="bold red")
    elif snapshot.stats:
        stats = snapshot.stats
        figures.append(f"{number(stats['completed_per_minute']):g} done a minute ")
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


def _row(table: Table, *cells: str | Text) -> None:
    """A row; plain text becomes Text, for in a str rich would see markup: what a task says is no markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(safe_text(cell)) for cell in cells))


def _table(*columns: str | tuple[str, str], gap: int = 2, fill: bool = False) -> Table:
    """A table without lines; with `fill` its last column takes the room that is left, and alone is cut."""
    table = Table(box=None, pad_edge=False, expand=fill, header_style="dim", padding=(0, gap, 0, 0))
    for place, column in enumerate(columns, 1):
        name, justify = column if isinstance(column, tuple) else (column, "left")
        table.add_column(
            Text(name),
            justify=justify,  # pyright: ignore[reportArgumentType] - "left" or "right"
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if fill and place == len(columns) else None,
        )
    return table


def _tasks(snapshot: Snapshot, *, types: int, width: int) -> RenderableType:
    names = [name.replace("_", " ") for name in COUNTS] if width >= MEDIUM else _SHORT
    narrow = width < NARROW
    columns = ("tasks", *((name, "right") for name in names), *(() if narrow else ("",)))
    table = _table(*columns, gap=1 if narrow else 2, fill=not narrow)
    longest = _BAR if width >= MEDIUM else _BAR // 2
    by_type = object_of(snapshot.stats.get("by_agent_type"))

    def open_tasks(counts: dict[str, Any]) -> int:
        return sum(_of(counts, name) for name in ("pending", "in_progress", "input_required"))

    # The busiest ones, where not all have room; the database names only so many itself.
    ranked = sorted(by_type.items(), key=lambda item: (-open_tasks(item[1]), item[0]))
    most = max((open_tasks(counts) for counts in by_type.values()), default=0)
    for name, counts in ranked[:types]:
        pending = bar(_of(counts, "pending"), most, longest)
        picture = Text(bar(_of(counts, "in_progress"), most, longest), style=STATUS_STYLE["in_progress"])
        picture.append(pending, style=STATUS_STYLE["pending"])
        label = short(name, max(6, width - 42) if narrow else 28 if width >= MEDIUM else 16)
        _row(table, label, *_counts(counts, width), *(() if narrow else (picture,)))
    oldest = snapshot.stats["oldest_pending_seconds"]
    note = "" if oldest is None else f"oldest waits {duration(oldest)}"
    others = number(object_of(snapshot.stats.get("other_agent_types")).get("agent_types"))
    unnamed = max(0, len(ranked) - types) + int(others)
    more = f" (+{unnamed}{'' if narrow else ' types'})" if unnamed else ""
    last = () if narrow else (Text(note, style="dim"),)
    _row(table, Text(f"all{more}", style="bold"), *_counts(snapshot.stats, width), *last)
    return table


def _of(counts: dict[str, Any], name: str) -> int:
    return int(number(counts.get(f"{name}_tasks")))


def _counts(counts: dict[str, Any], width: int) -> list[Text]:
    return [
        Text(
            _count(_of(counts, name), width), style=STATUS_STYLE.get(name, "") if _of(counts, name) else "dim"
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
    return short(worker.get("name") or worker.get("id"), 26)


def _load(worker: dict[str, Any]) -> str:
    return f"{plain(worker.get('in_progress'))}/{plain(worker.get('concurrency'))}"


def _workers(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    narrow = width < NARROW
    columns = (f"workers ({len(snapshot.workers)})", "state", "push", ("tasks", "right"))
    table = _table(*columns, *(() if narrow else ("", "heartbeat")), gap=1 if narrow else 2)
    shown = rows if len(snapshot.workers) <= rows else rows - 1
    for worker in snapshot.workers[:shown]:
        info = worker.get("info")
        push, mode = short(text_of(info, "push") or "-", 12), text_of(info, "push_mode")
        way = f" ({short(mode, 12)})" if mode and width >= MEDIUM else ""
        state = "lost" if not worker.get("alive") else short(worker.get("desired_state"), 12)
        more = (
            Text(bar(number(worker.get("in_progress")), number(worker.get("concurrency")), 10), style="blue"),
            age_of(worker.get("heartbeat_at"), snapshot.at),
        )
        _row(
            table,
            short(_name(worker), max(8, width - 34)),
            Text(state, style={"running": "green", "lost": "red"}.get(state, "yellow")),
            Text(push + way, style=_PUSH_STYLE.get(push, "yellow")),
            _load(worker),
            *(() if narrow else more),
        )
    if len(snapshot.workers) > shown:
        _row(table, Text(f"and {len(snapshot.workers) - shown} more", style="dim"))
    if not snapshot.workers:
        _row(table, Text("none is registered", style="yellow"))
    return table


def _running(snapshot: Snapshot, rows: int, width: int) -> RenderableType:
    total = _of(snapshot.stats, "in_progress")
    table = _table(f"running ({total:,})", ("for", "right"), "agent type", "prompt", fill=True)
    for todo in snapshot.running[:rows]:
        _row(
            table,
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
        when = clock(event.created_at, seconds_only=narrow)
        which = () if narrow else (Text(event.todolist_id[:8], style="dim"), str(event.seq or ""))
        _row(
            table,
            Text(when, style="dim"),
            *which,
            Text(short(event.event_type, 24), style=EVENT_STYLE.get(event.event_type, "")),
            short(event.message or "", width),
        )
    return table
