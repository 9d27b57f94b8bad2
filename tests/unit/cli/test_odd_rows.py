"""No row, worker or figure, whatever it holds, ends a command that shows it, or obeys a terminal."""

from __future__ import annotations

import io
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console as Screen

from reactive_worker.cli.console import Console
from reactive_worker.cli.doctor import say_finding
from reactive_worker.cli.monitor import say_stats
from reactive_worker.cli.result_stream import ResultStream
from reactive_worker.cli.task_view import say_event, say_facts, say_result, say_tasks, todo_json
from reactive_worker.cli.watch_view import Snapshot, draw
from reactive_worker.cli.workers import say_workers
from reactive_worker.columns import as_row
from reactive_worker.doctor.leftovers import judge_waiting, judge_workers
from reactive_worker.models import Todo, TodoEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return value


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "[/x]", "[red]", "[link=file:///etc]", "a\x1b[2Jb", "\x9b31m", "\u202eexe.txt", "\u2028", "\x00",
         "\ud800", "x" * 5000, "漢" * 200, "%s{}\\", "a\rb\nc\td", "\u200d\u200b\ufeff", "👩‍👩‍👧‍👦"]
    ),
)  # fmt: skip
JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**30), 1e308, nested(900), nested(20), [], {}, "Infinity"]),
    # No element: Hypothesis prints those when a strategy is slow, and no Python prints so many digits.
    st.just(5000).map(lambda zeros: 10**zeros),
    st.floats(allow_nan=False),
    TEXTS,
    st.lists(st.one_of(TEXTS, st.integers()), max_size=4),
    st.dictionaries(TEXTS, TEXTS, max_size=4),
)
TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00+00:00",
        "-infinity",
        "infinity",
        "4713-01-01 00:00:00+00 BC",
        "294276-12-31T00:00:00+00:00",
    ]
)  # fmt: skip
COUNTS = st.one_of(st.integers(0, 2**63), JSON)
IDS = st.uuids().map(str)

ROWS = st.fixed_dictionaries(
    {
        "id": IDS,
        "agent_type": TEXTS,
        "prompt": TEXTS,
        "agent_status": st.sampled_from(
            ["pending", "in_progress", "input_required", "completed", "failed", "cancelled"]
        ),
        "created_at": TIMES,
    },
    optional={
        "input_data": JSON,
        "agent_output": st.one_of(JSON, st.fixed_dictionaries({"text": JSON})),
        "error": st.one_of(JSON, st.fixed_dictionaries({"type": JSON, "message": JSON, "traceback": JSON})),
        "started_at": TIMES,
        "completed_at": TIMES,
        "available_at": TIMES,
        "priority": st.integers(-(2**31), 2**31),
        "context_id": TEXTS,
        "task_state": TEXTS,
        "idempotency_key": TEXTS,
        "worker_id": TEXTS,
        "of_the_user": JSON,
    },
)
PARTS = st.one_of(JSON, st.lists(st.fixed_dictionaries({"text": JSON})))
ARTIFACTS = st.fixed_dictionaries({"artifactId": JSON, "parts": PARTS})
UPDATES = st.fixed_dictionaries({"artifact": ARTIFACTS, "append": JSON})
EVENTS = st.fixed_dictionaries(
    {
        "id": IDS,
        "todolist_id": IDS,
        "event_type": st.one_of(TEXTS, st.sampled_from(["task_artifact", "task_retrying", "task_lost"])),
        "event_data": st.one_of(
            st.dictionaries(TEXTS, JSON, max_size=3),
            st.fixed_dictionaries({"artifactUpdate": JSON}),
            st.fixed_dictionaries({"artifactUpdate": UPDATES}),
        ),
        "seq": st.integers(0, 2**63),
        "created_at": TIMES,
    },
    optional={"message": TEXTS},
)  # fmt: skip
WORKERS = st.fixed_dictionaries(
    {
        "id": IDS,
        "name": st.one_of(st.none(), TEXTS),
        "alive": st.booleans(),
        "desired_state": TEXTS,
        "in_progress": COUNTS,
        "concurrency": COUNTS,
        "started_at": TIMES,
        "heartbeat_at": TIMES,
        "agent_types": st.one_of(st.none(), st.lists(TEXTS, max_size=3)),
        "info": st.one_of(
            JSON, st.fixed_dictionaries({"push": JSON, "push_mode": JSON, "push_since": JSON})
        ),
    }
)  # fmt: skip
STATUS_COUNTS = {
    f"{name}_tasks": COUNTS
    for name in ("pending", "in_progress", "input_required", "completed", "failed", "cancelled", "total")
}
STATS = st.fixed_dictionaries(
    {
        **STATUS_COUNTS,
        "by_agent_type": st.dictionaries(TEXTS, st.fixed_dictionaries(STATUS_COUNTS), max_size=4),
        "oldest_pending_seconds": JSON,
        "workers_alive": COUNTS,
        "wait_p50": JSON, "wait_p95": JSON, "run_p50": JSON, "run_p95": JSON,
        "sampled": COUNTS,
        "window_seconds": st.floats(1, 1e7),
        "completed_by_minute": st.lists(st.integers(0, 2**40), min_size=10, max_size=10),
        "completed_per_minute": COUNTS,
        "failures_by_cause": st.dictionaries(TEXTS, COUNTS, max_size=4),
    }
)  # fmt: skip

arbitrary = settings(
    max_examples=25,
    deadline=None,
    # Shrinking rows that are nested 900 deep takes minutes; what is printed of one is enough to see why.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["pipe", "terminal", "json"])
def out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal() if request.param == "terminal" else io.StringIO()
    stream.json = request.param == "json"  # type: ignore[attr-defined]
    return stream


def harmless(out: io.StringIO) -> None:
    """Nothing in it that a terminal obeys."""
    told = set(out.getvalue()) - {"\n", "\t"}
    assert not [one for one in told if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs")]


def console(out: io.StringIO) -> Console:
    out.seek(0)
    out.truncate()
    return Console(out=out, err=out, json_output=out.json)  # type: ignore[attr-defined]


@arbitrary
@given(rows=st.lists(ROWS, min_size=1, max_size=3))
def test_tasks_and_task(out: io.StringIO, rows: list[dict[str, Any]]) -> None:
    todos = [Todo.from_row(row) for row in rows]
    screen = console(out)
    say_tasks(screen, todos)
    for todo in todos:
        screen.emit(todo_json(todo))
        say_facts(screen, todo)
        say_result(screen, todo, traceback=True)
    harmless(out)


@arbitrary
@given(rows=st.lists(EVENTS, max_size=4), row=ROWS)
def test_events(out: io.StringIO, rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    screen = console(out)
    stream = ResultStream(screen)
    for event in map(TodoEvent.from_row, rows):
        screen.emit(as_row(event))
        say_event(screen, event)
        say_event(screen, event, started=NOW, with_task=True)
        stream.hear(event)
    stream.finish(Todo.from_row(row))
    harmless(out)


@arbitrary
@given(workers=st.lists(WORKERS, min_size=1, max_size=3))
def test_workers(out: io.StringIO, workers: list[dict[str, Any]]) -> None:
    screen = console(out)
    say_workers(screen, workers)
    for worker in workers:
        screen.emit(worker)
    harmless(out)


@arbitrary
@given(stats=STATS)
def test_stats(out: io.StringIO, stats: dict[str, Any]) -> None:
    screen = console(out)
    screen.emit(stats)
    say_stats(screen, stats)
    harmless(out)


@arbitrary
@given(
    stats=STATS,
    workers=st.lists(WORKERS, max_size=3),
    running=st.lists(ROWS, max_size=3),
    events=st.lists(EVENTS, max_size=3),
    outage=TEXTS,
    size=st.sampled_from([(40, 12), (80, 24), (140, 40)]),
)
def test_watch(
    stats: dict[str, Any],
    workers: list[dict[str, Any]],
    running: list[dict[str, Any]],
    events: list[dict[str, Any]],
    outage: str,
    size: tuple[int, int],
) -> None:
    snapshot = Snapshot(
        at=NOW,
        stats=stats,
        workers=workers,
        running=[Todo.from_row(row) for row in running],
        events=[TodoEvent.from_row(row) for row in events],
        outage=outage,
        outage_since=NOW,
    )
    file = io.StringIO()
    screen = Screen(file=file, width=size[0], height=size[1], color_system=None, legacy_windows=False)
    screen.print(draw(snapshot, width=size[0], height=size[1]), height=size[1])
    harmless(file)


@arbitrary
@given(
    workers=st.lists(
        st.fixed_dictionaries(
            {
                "id": IDS, "name": st.one_of(st.none(), TEXTS), "agent_types": st.lists(TEXTS, max_size=2),
                "push": JSON, "expired_seconds": JSON, "alive": st.booleans(), "holds": st.integers(0, 9),
            }
        ), max_size=3),
    waiting=st.lists(
        st.fixed_dictionaries(
            {"agent_type": TEXTS, "due": st.integers(1, 9), "oldest_seconds": JSON, "served": st.booleans()}
        ), max_size=7),
)  # fmt: skip
def test_doctor(out: io.StringIO, workers: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> None:
    screen = console(out)
    for finding in [*judge_workers(workers), *judge_waiting(waiting, workers)]:
        say_finding(screen, finding)
        screen.emit(finding.as_json())
    harmless(out)
