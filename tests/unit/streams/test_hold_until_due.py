"""`hold_until_due`: not before its time, and not lost meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject

from reactive_worker.models import Candidate
from reactive_worker.streams import hold_until_due
from reactive_worker.testing.marbles import Recording, VirtualTime, candidate


def rig(
    capacity: int = 100, ahead: float = 0.0
) -> tuple[VirtualTime, Subject[Candidate], Recording[Candidate]]:
    """Time, rows and result; the database's clock is `ahead` seconds ahead of ours."""
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()

    def now() -> datetime:
        return time.now() + timedelta(seconds=ahead)

    return time, rows, time.observe(rows.pipe(hold_until_due(now, capacity)))


def heard(result: Recording[Candidate]) -> list[tuple[float, str]]:
    return [(at, row.id) for at, row in zip(result.times, result.values, strict=True)]


def test_what_is_due_passes_and_the_rest_waits_its_time() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=5))
    rows.on_next(candidate("b"))
    rows.on_next(candidate("c", due=3))
    time.run(20)
    assert heard(result) == [(0, "b"), (3, "c"), (5, "a")]


def test_due_is_what_the_database_says_it_is() -> None:
    time, rows, result = rig(ahead=100.0)
    rows.on_next(candidate("a", due=105))
    time.run(20)
    assert heard(result) == [(5, "a")]


def test_the_schedulers_clock_is_the_default() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(hold_until_due()))
    rows.on_next(candidate("a", due=5))
    time.run(20)
    assert heard(result) == [(5, "a")]


def test_beyond_capacity_the_last_due_is_dropped() -> None:
    time, rows, result = rig(capacity=2)
    for name, due in (("a", 9), ("b", 3), ("c", 5), ("d", 7)):
        rows.on_next(candidate(name, due=due))
    time.run(20)
    assert heard(result) == [(3, "b"), (5, "c")]


def test_the_newest_word_on_a_row_counts() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=3, attempt=1))
    rows.on_next(candidate("a", due=6, attempt=2))
    rows.on_next(candidate("a", due=1, attempt=1))
    rows.on_next(candidate("b", due=9))
    rows.on_next(candidate("b", due=2))
    time.run(20)
    assert heard(result) == [(2, "b"), (6, "a")]
    assert result.values[1].attempt == 2


def test_a_row_that_is_due_after_all_is_not_held_as_well() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=5))
    rows.on_next(candidate("a", due=0))
    time.run(20)
    assert heard(result) == [(0, "a")]


def test_times_beyond_every_timer_are_waited_for() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("far", due=100_000))
    rows.on_next(Candidate("never", "x", 0, 0, datetime.max.replace(tzinfo=UTC), time.now()))
    time.run(99_999)
    assert heard(result) == []
    time.run(200_000)
    assert heard(result) == [(100_000, "far")]


def test_a_clock_that_is_set_back_makes_it_wait_for_the_true_time() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    behind = timedelta(0)
    result = time.observe(rows.pipe(hold_until_due(lambda: time.now() - behind)))
    rows.on_next(candidate("a", due=5))
    behind = timedelta(seconds=2)
    time.run(20)
    assert heard(result) == [(7, "a")]


def test_completion_waits_for_what_is_held() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=5))
    rows.on_completed()
    time.run(20)
    assert [(m.time, m.kind) for m in result.messages] == [(5, "next"), (5, "completed")]


def test_an_error_does_not_wait() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=5))
    rows.on_error(RuntimeError())
    time.run(20)
    assert [m.kind for m in result.messages] == ["error"]


def test_disposal_stops_the_timer() -> None:
    time, rows, result = rig()
    rows.on_next(candidate("a", due=5))
    result.dispose()
    time.run(20)
    assert (result.messages, rows.observers) == ([], [])


def test_rows_offered_while_others_are_let_go_are_not_lost() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    seen: list[str] = []

    def listen(row: Candidate) -> None:
        seen.append(row.id)
        if row.id == "a":
            rows.on_next(candidate("c", due=5))
            rows.on_next(candidate("d", due=6))

    rows.pipe(hold_until_due(time.now)).subscribe(listen, scheduler=time.scheduler)
    rows.on_next(candidate("a", due=5))
    rows.on_next(candidate("b", due=5))
    time.run(20)
    assert sorted(seen) == ["a", "b", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=40))
def test_every_row_comes_when_its_last_word_says(offers: list[tuple[int, int]]) -> None:
    time, rows, result = rig()
    last = {str(number): due for number, due in offers if due}
    for number, due in offers:
        if due:
            rows.on_next(candidate(str(number), due=due))
    time.run(100)
    assert sorted(heard(result)) == sorted((due, name) for name, due in last.items())
    assert result.times == sorted(result.times)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        hold_until_due(capacity=0)
