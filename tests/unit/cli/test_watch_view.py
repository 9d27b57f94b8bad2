"""The picture of `watch`, drawn from fixed figures and read as text."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from reactive_worker.cli.pictures import bar, sparkline
from reactive_worker.cli.watch_view import Snapshot, draw
from reactive_worker.models import Todo, TodoEvent

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
COUNTS = {
    "pending_tasks": 1200,
    "in_progress_tasks": 2,
    "input_required_tasks": 1,
    "completed_tasks": 5,
    "failed_tasks": 3,
    "cancelled_tasks": 0,
    "total_tasks": 1211,
}
STATS: dict[str, Any] = {
    **COUNTS,
    "by_agent_type": {"research": COUNTS, "idle": dict.fromkeys(COUNTS, 0)},
    "oldest_pending_seconds": 90,
    "completed_per_minute": 4.2,
    "completed_by_minute": [0, 1, 2, 4, 8, 8, 4, 2, 1, 0],
    "sampled": 8,
    "wait_p50": 0.02,
    "wait_p95": 1.5,
    "run_p50": 3,
    "run_p95": 75,
}
WORKER = {
    "id": "w1",
    "name": "host-1",
    "alive": True,
    "desired_state": "running",
    "in_progress": 2,
    "concurrency": 10,
    "heartbeat_at": (NOW - timedelta(seconds=4)).isoformat(),
    "info": {"push": "deaf", "push_mode": "changes"},
}
LOST = {**WORKER, "id": "w2", "name": "host-2", "alive": False, "in_progress": 0}


def todo(number: int) -> Todo:
    return Todo.from_row(
        {
            "id": f"0000000{number}-0000-0000-0000-000000000000",
            "agent_type": "research",
            "prompt": "who invented\x1b[31m the wheel?",
            "agent_status": "in_progress",
            "attempt": 1,
            "created_at": NOW.isoformat(),
            "started_at": (NOW - timedelta(seconds=61)).isoformat(),
        }
    )


def said(number: int) -> TodoEvent:
    return TodoEvent(
        todolist_id="00000001-0000-0000-0000-000000000000",
        attempt=1,
        event_type="task_progress",
        event_data={},
        message=f"line {number}",
        seq=number,
        created_at=NOW,
    )


SNAPSHOT = Snapshot(
    at=NOW,
    stats=STATS,
    workers=[WORKER, LOST],
    running=[todo(1), todo(2)],
    events=[said(n) for n in range(1, 100)],
)


def text(snapshot: Snapshot, width: int = 140, height: int = 30) -> str:
    out = io.StringIO()
    screen = Console(file=out, width=width, height=height, color_system=None, legacy_windows=False)
    screen.print(draw(snapshot, width=width, height=height), height=height)
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(140, 30), (84, 24), (40, 12), (200, 60)])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    lines = text(SNAPSHOT, width, height).splitlines()
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_everything_is_there() -> None:
    picture = text(SNAPSHOT)
    assert "4.2 done a minute ▁▁▂▄██▄▂▁▁" in picture
    assert "waits 20 ms (p95 1.5 s)   runs 3.0 s (p95 1 min 15 s)" in picture
    for words in ("research", "1,200", "oldest waits 1 min 30 s", "host-1", "deaf (changes)", "2/10", "lost"):
        assert words in picture, words
    assert "running (2)" in picture
    assert "1 min 1 s" in picture
    # What a task says must not recolour the terminal.
    assert "\x1b" not in picture
    # The newest events, as many as there is room for.
    assert "line 99" in picture
    assert "line 1 " not in picture


def test_where_there_is_room_nothing_but_the_last_column_is_cut() -> None:
    busy = {
        **WORKER,
        "in_progress": 500,
        "concurrency": 500,
        "info": {"push": "healthy", "push_mode": "broadcast"},
    }
    for width in (100, 131, 132, 140, 200):
        picture = text(replace(SNAPSHOT, workers=[busy, {**LOST, "desired_state": "draining"}]), width, 36)
        for words in ("running", "healthy (broadcast)", "500/500", "heartbeat", "4.0 s", "host-2", "lost"):
            assert words in picture, (width, words)
        assert "who invented" in picture, width


@pytest.mark.parametrize("width", [40, 50, 78])
def test_a_narrow_terminal_still_tells_figures(width: int) -> None:
    many = {**COUNTS, "completed_tasks": 1_234_567, "pending_tasks": 45_678}
    stats = {**STATS, **many, "by_agent_type": {"a-very-long-agent-type": many}}
    picture = text(replace(SNAPSHOT, stats=stats), width, 14)
    for words in ("45k", "1.23M", "host-1", "deaf", "2/10", "4.2 done a minute", "task_progress"):
        assert words in picture, words
    assert "a-ver" in picture


def test_workers_without_room_are_counted() -> None:
    fleet = [{**WORKER, "name": f"host-{number}"} for number in range(40)]
    picture = text(replace(SNAPSHOT, workers=fleet))
    assert "workers (40)" in picture
    shown = sum(f"host-{number} " in picture for number in range(40))
    assert 0 < shown < 40
    assert f"and {40 - shown} more" in picture


def test_an_outage_is_said_and_the_last_figures_stay() -> None:
    since = NOW - timedelta(seconds=20)
    picture = text(Snapshot(at=NOW, stats=STATS, outage="connection refused", outage_since=since))
    assert f"cannot reach Supabase since {since.astimezone():%H:%M:%S} (20 s): connection refused" in picture
    assert "1,200" in picture
    assert "none is registered" in picture


def test_small_pictures() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([1, 8]) == "▁█"
    assert bar(10, 10, 5) == "█████"
    assert bar(20, 10, 5) == "█████"
    assert bar(1, 0, 5) == ""
