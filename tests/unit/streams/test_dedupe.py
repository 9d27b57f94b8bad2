"""`dedupe`: once, as far as memory goes."""

from __future__ import annotations

from typing import Any

import pytest
from reactivex.subject import Subject

from reactive_worker.models import Candidate
from reactive_worker.streams import dedupe
from reactive_worker.testing.marbles import VirtualTime, candidate, candidates

ROWS = {**candidates("abcd"), "A": candidate("a", attempt=1)}


def test_a_key_passes_once_and_the_next_attempt_is_another_key() -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-a-b-a-A-b-a-A-|", ROWS).pipe(dedupe()))
    time.run()
    assert result.messages == time.messages("-a-b---A-------|", ROWS)


def test_push_and_sweep_of_the_same_row_are_one() -> None:
    time = VirtualTime()
    rows = {"p": candidate("a", source="realtime"), "s": candidate("a", source="sweep")}
    result = time.observe(time.hot("-p-s-|", rows).pipe(dedupe()))
    time.run()
    assert result.messages == time.messages("-p---|", rows)


def test_a_row_that_changed_passes_again() -> None:
    time = VirtualTime()
    rows = {"a": candidate("a"), "b": candidate("a", priority=3), "c": candidate("a", due=60)}
    result = time.observe(time.hot("-a-a-b-b-c-|", rows).pipe(dedupe()))
    time.run()
    assert result.messages == time.messages("-a---b---c-|", rows)


def test_it_forgets_after_ttl_counted_from_when_it_passed() -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-a---a----a---a-|", ROWS).pipe(dedupe(ttl=9)))
    time.run()
    assert result.messages == time.messages("-a--------a-----|", ROWS)


def test_beyond_capacity_the_key_not_seen_for_longest_is_forgotten() -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-a-b-a-c-a-b-|", ROWS).pipe(dedupe(capacity=2)))
    time.run()
    assert result.messages == time.messages("-a-b---c---b-|", ROWS)


def test_forgotten_keys_pass_again() -> None:
    time = VirtualTime()
    forget: Subject[Any] = Subject()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(dedupe(forget=forget)))
    rows.on_next(ROWS["a"])
    rows.on_next(ROWS["b"])
    forget.on_next([("a", 0), ("nobody", 7)])
    rows.on_next(ROWS["a"])
    rows.on_next(ROWS["b"])
    forget.on_next(["b", "nobody"])
    rows.on_next(ROWS["a"])
    rows.on_next(ROWS["b"])
    assert [row.id for row in result.values] == ["a", "b", "a", "b"]


def test_an_error_of_forget_is_the_streams() -> None:
    time = VirtualTime()
    error = RuntimeError("forgotten")
    result = time.observe(time.hot("-a---", ROWS).pipe(dedupe(forget=time.hot("---#", error=error))))
    time.run()
    assert result.error is error


def test_disposal_lets_go_of_forget() -> None:
    time = VirtualTime()
    forget: Subject[Any] = Subject()
    time.observe(time.hot("-a---", ROWS).pipe(dedupe(forget=forget))).dispose()
    assert forget.observers == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ttl": 0}, "ttl must be above 0 seconds, not 0"),
        ({"capacity": 0}, "capacity must be at least 1, not 0"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dedupe(**options)
