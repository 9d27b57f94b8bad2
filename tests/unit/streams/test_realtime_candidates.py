"""`realtime_candidates`: rows as Realtime tells them."""

from __future__ import annotations

from typing import Any

from reactivex.subject import Subject

from reactive_worker.streams import realtime_candidates
from reactive_worker.testing.marbles import VirtualTime, row_id


def record(name: str, **columns: Any) -> dict[str, Any]:
    row = {"id": row_id(name), "agent_type": "digest", "priority": 3, "agent_status": "pending"}
    return row | {"created_at": "2030-01-01T00:00:00+00:00"} | columns


def test_a_record_becomes_a_candidate_that_knows_where_it_came_from() -> None:
    time, records = VirtualTime(), Subject[Any]()
    result = time.observe(records.pipe(realtime_candidates(lambda row, error: None)))
    records.on_next(record("a", attempt=2))
    [row] = result.values
    assert (row.id, row.priority, row.attempt, row.source) == (row_id("a"), 3, 2, "realtime")


def test_a_row_that_cannot_be_read_is_told_and_the_stream_goes_on() -> None:
    time, records = VirtualTime(), Subject[Any]()
    told: list[tuple[Any, str]] = []
    operator = realtime_candidates(lambda row, error: told.append((row, str(error))))
    result = time.observe(records.pipe(operator))
    bad: list[Any] = [
        {},
        record("x", id="7"),
        record("x", created_at="soon"),
        record("x", priority="high"),
        None,
    ]
    for row in bad:
        records.on_next(row)
    records.on_next(record("a"))
    assert [row for row, _ in told] == bad
    assert "id is not a uuid: '7'" in told[1][1]
    assert len(result.values) == 1


def test_rows_that_are_not_pending_are_no_candidates() -> None:
    time, records = VirtualTime(), Subject[Any]()
    told: list[Any] = []
    result = time.observe(records.pipe(realtime_candidates(lambda row, error: told.append(row))))
    for status in ("in_progress", "completed", "input_required", "pending"):
        records.on_next(record("a", agent_status=status))
    assert (len(result.values), told) == (1, [])
