"""What users compose their candidates with: `aging`, `pause_while`, `rate_limit`, `limit_concurrency`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import BehaviorSubject, Subject

from reactive_worker.models import Candidate
from reactive_worker.streams import aging, limit_concurrency, pause_while, rate_limit
from reactive_worker.testing.marbles import Recording, VirtualTime, candidate, candidates


def letter(row: Candidate) -> str | None:
    """The key: the first letter of the id; x has none."""
    return None if row.id[0] == "x" else row.id[0]


def heard(result: Recording[Candidate]) -> list[tuple[float, str]]:
    return [(at, row.id) for at, row in zip(result.times, result.values, strict=True)]


def names(result: Recording[Candidate]) -> str:
    return " ".join(row.id for row in result.values)


# aging
# --------------------------------------------------------------------------------------------------------


def test_waiting_is_worth_priority() -> None:
    rows = [
        candidate("old and low", priority=0, due=0),
        candidate("new and high", priority=5, due=400),
        candidate("newer and high", priority=5, due=200),
    ]
    assert [row.id for row in sorted(rows, key=aging(60))] == [
        "newer and high",
        "old and low",
        "new and high",
    ]


@given(
    st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 10_000)
)
def test_the_order_of_two_is_the_same_at_any_time(p: int, q: int, a: int, b: int, now: int) -> None:
    first, second = candidate("a", priority=p, due=a), candidate("b", priority=q, due=b)
    urgency = (p + (now - a) / 60, q + (now - b) / 60)
    if abs(urgency[0] - urgency[1]) > 1e-6:
        assert (aging(60)(first) < aging(60)(second)) == (urgency[0] > urgency[1])


def test_aging_checks_its_argument() -> None:
    with pytest.raises(ValueError, match="per must be above 0 seconds, not 0"):
        aging(0)


# pause_while
# --------------------------------------------------------------------------------------------------


def test_while_paused_candidates_wait_and_then_go_best_first() -> None:
    time = VirtualTime()
    rows = {
        "a": candidate("a"),
        "b": candidate("b", priority=1),
        "c": candidate("c", priority=2),
        "d": candidate("d"),
    }
    paused = time.hot("   --T-----F----", {"T": True, "F": False})
    result = time.observe(time.hot("-a-b-c----d-|", rows).pipe(pause_while(paused)))
    time.run()
    assert heard(result) == [(1, "a"), (8, "c"), (8, "b"), (10, "d")]
    assert result.completed


def test_it_may_be_paused_again_by_what_is_let_go() -> None:
    rows: Subject[Candidate] = Subject()
    paused = BehaviorSubject(True)
    seen: list[str] = []

    def listen(row: Candidate) -> None:
        seen.append(row.id)
        paused.on_next(True)

    rows.pipe(pause_while(paused)).subscribe(listen)
    for row in candidates("abc").values():
        rows.on_next(row)
    paused.on_next(False)
    assert seen == ["a"]
    paused.on_next(False)
    assert seen == ["a", "b"]


def test_completion_while_paused_waits() -> None:
    time = VirtualTime()
    paused = time.hot("T------F---", {"T": True, "F": False})
    result = time.observe(time.hot("-a-|", candidates("a")).pipe(pause_while(paused)))
    time.run()
    assert [(m.time, m.kind) for m in result.messages] == [(7, "next"), (7, "completed")]


def test_when_paused_ends_it_stays_as_it_was_and_its_error_is_the_streams() -> None:
    time = VirtualTime()
    rows = time.hot("-----a--|", candidates("a"))
    stays = time.observe(rows.pipe(pause_while(time.hot("T|", {"T": True}))))
    error = RuntimeError("no clock")
    fails = time.observe(rows.pipe(pause_while(time.hot("-#", error=error))))
    time.run()
    assert stays.messages == []
    assert fails.error is error


def test_the_worst_are_dropped_beyond_what_a_pause_can_hold() -> None:
    time = VirtualTime()
    paused = BehaviorSubject(True)
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(pause_while(paused, capacity=2)))
    for name, priority in (("a", 1), ("b", 0), ("c", 2)):
        rows.on_next(candidate(name, priority=priority))
    paused.on_next(False)
    assert names(result) == "c a"


def test_disposing_a_pause_lets_go_of_both_sides() -> None:
    time, rows, paused = VirtualTime(), Subject[Candidate](), BehaviorSubject(True)
    result = time.observe(rows.pipe(pause_while(paused)))
    rows.on_next(candidate("a"))
    result.dispose()
    paused.on_next(False)
    assert (result.messages, rows.observers, paused.observers) == ([], [], [])


# rate_limit
# ---------------------------------------------------------------------------------------------------


def test_each_key_has_its_own_pace() -> None:
    time = VirtualTime()
    rows = {name: candidate(name) for name in ("a1", "a2", "a3", "b1", "x1", "x2")}
    source = time.hot("(a1,a2,a3,b1,x1,x2)-|", rows)
    result = time.observe(source.pipe(rate_limit(letter, 10)))
    time.run()
    assert heard(result) == [(0, "a1"), (0, "b1"), (0, "x1"), (0, "x2"), (10, "a2"), (20, "a3")]
    assert result.messages[-1][:2] == (20, "completed")


def test_the_limit_holds_for_any_stretch_of_time() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(rate_limit(letter, 10, limit=2)))
    for at, name in ((0, "a1"), (6, "a2"), (7, "a3"), (8, "a4"), (40, "a5"), (40, "a6"), (40, "a7")):
        time.run(at)
        rows.on_next(candidate(name))
    time.run(100)
    assert heard(result) == [(0, "a1"), (6, "a2"), (10, "a3"), (16, "a4"), (40, "a5"), (40, "a6"), (50, "a7")]


def test_among_those_that_wait_the_best_is_next() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(rate_limit(letter, 10)))
    for name, priority in (("a1", 0), ("a2", 1), ("a3", 5)):
        rows.on_next(candidate(name, priority=priority))
    time.run(100)
    assert names(result) == "a1 a3 a2"


def test_what_passed_passes_again_and_does_not_count_twice() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(rate_limit(letter, 10)))
    rows.on_next(candidate("a1"))
    time.run(9)
    rows.on_next(candidate("a1"))
    time.run(11)
    rows.on_next(candidate("a2"))
    rows.on_next(candidate("a1", attempt=1))
    time.run(100)
    assert heard(result) == [(0, "a1"), (9, "a1"), (11, "a2"), (21, "a1")]


def test_a_clock_set_back_holds_nothing_for_ever() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    time.run(10_000)
    result = time.observe(rows.pipe(rate_limit(letter, 10)))
    for name in ("a1", "a2", "a3", "b1", "b2"):
        rows.on_next(candidate(name))
    time.scheduler._clock = 5_000.0
    rows.on_next(candidate("a4"))
    # The timers that were set have the old time; a real loop's count in seconds that pass, as these do then.
    time.run(20_000)
    assert len(result.values) == 6


def test_keys_that_are_done_are_forgotten() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    limiter = rate_limit(lambda row: row.id, 5)
    result = time.observe(rows.pipe(limiter))
    for number in range(3_000):
        rows.on_next(candidate(str(number)))
        time.advance(1)
    assert len(result.values) == 3_000


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from("ab")), max_size=30), st.integers(1, 3))
def test_never_more_than_the_limit_and_nothing_lost(offers: list[tuple[float, str]], limit: int) -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    result = time.observe(rows.pipe(rate_limit(letter, 10, limit=limit)))
    for number, (pause, name) in enumerate(offers):
        time.run(round(time.seconds + pause, 3))
        rows.on_next(candidate(f"{name}{number}"))
    rows.on_completed()
    time.run(100_000)
    assert result.completed
    assert len(result.values) == len(offers)
    for name in "ab":
        times = [at for at, id in heard(result) if id[0] == name]
        assert all(later - before >= 10 - 1e-5 for before, later in zip(times, times[limit:], strict=False))


# limit_concurrency
# --------------------------------------------------------------------------------------------


class Rig:
    def __init__(self, n: int = 1, *, watch: bool = False, **options: Any) -> None:
        self.time = VirtualTime()
        self.rows: Subject[Candidate] = Subject()
        self.finished: Subject[Collection[str]] = Subject()
        self.started: Subject[Collection[str]] = Subject()
        operator = limit_concurrency(
            letter, n, finished=self.finished, started=self.started if watch else None, **options
        )
        self.result = self.time.observe(self.rows.pipe(operator))

    def offer(self, ids: str, **columns: Any) -> None:
        for id in ids.split():
            self.rows.on_next(candidate(id, **columns))

    def finish(self, ids: str) -> None:
        self.finished.on_next(ids.split())

    @property
    def passed(self) -> str:
        return names(self.result)


def test_the_next_of_a_key_waits_for_a_place() -> None:
    rig = Rig(2)
    rig.offer("a1 a2 a3 a4 b1 x1 x2 x3")
    assert rig.passed == "a1 a2 b1 x1 x2 x3"
    rig.finish("a2")
    assert rig.passed.endswith("x3 a3")
    rig.finish("a1 b1 nobody")
    assert rig.passed.endswith("a3 a4")


def test_the_best_gets_the_place() -> None:
    rig = Rig()
    rig.offer("a1")
    rig.offer("a2", priority=1)
    rig.offer("a3", priority=7)
    rig.finish("a1")
    assert rig.passed == "a1 a3"


def test_one_that_has_a_place_passes_again_without_another() -> None:
    rig = Rig()
    rig.offer("a1 a1 a2")
    rig.finish("a1")
    assert rig.passed == "a1 a1 a2"


def test_one_that_is_gone_waits_no_more() -> None:
    rig = Rig()
    rig.offer("a1 a2 a3")
    rig.finish("a2")
    rig.finish("a1")
    assert rig.passed == "a1 a3"


def test_a_place_nobody_heard_of_is_given_back() -> None:
    rig = Rig(watch=True, patience=10.0)
    rig.offer("a1 a2 b1 b2")
    rig.time.run(4)
    rig.started.on_next(["a1"])
    rig.time.run(9.9)
    assert rig.passed == "a1 b1"
    rig.time.run(100)
    assert rig.passed == "a1 b1 b2"
    rig.finish("a1")
    assert rig.passed == "a1 b1 b2 a2"


def test_without_word_of_starts_places_are_kept() -> None:
    rig = Rig()
    rig.offer("a1 a2")
    rig.time.run()
    assert rig.passed == "a1"


def test_a_place_taken_anew_is_waited_for_anew() -> None:
    rig = Rig(watch=True, patience=10.0)
    rig.offer("a1")
    rig.time.run(6)
    rig.finish("a1")
    rig.offer("a1 a2")
    rig.time.run(12)
    assert rig.passed == "a1 a1"
    rig.time.run(17)
    assert rig.passed == "a1 a1 a2"


def test_beyond_capacity_the_worst_of_the_fullest_key_is_dropped() -> None:
    rig = Rig(capacity=2)
    rig.offer("a1 a2 a3 a4 b1 b2")
    rig.finish("a1 b1")
    rig.finish("a2 b2")
    assert rig.passed == "a1 b1 a2 b2"


def test_the_end_waits_for_those_that_wait() -> None:
    rig = Rig()
    rig.offer("a1 a2")
    rig.rows.on_completed()
    assert not rig.result.completed
    rig.finish("a1")
    assert (rig.passed, rig.result.completed) == ("a1 a2", True)


def test_errors_of_the_other_sides_end_it() -> None:
    for side in ("finished", "started"):
        rig = Rig(watch=True)
        getattr(rig, side).on_error(RuntimeError(side))
        assert str(rig.result.error) == side


def test_disposing_a_limit_lets_go_of_every_side() -> None:
    rig = Rig(watch=True)
    rig.offer("a1 a2")
    rig.result.dispose()
    rig.time.run(100)
    assert not any(side.observers for side in (rig.rows, rig.finished, rig.started))
    assert rig.passed == "a1"


def test_finishing_at_once_does_not_grow_the_stack() -> None:
    rows: Subject[Candidate] = Subject()
    finished: Subject[Collection[str]] = Subject()
    seen: list[str] = []

    def listen(row: Candidate) -> None:
        seen.append(row.id)
        if len(seen) > 1:
            finished.on_next([row.id])

    rows.pipe(limit_concurrency(letter, 1, finished=finished)).subscribe(listen)
    for number in range(5_000):
        rows.on_next(candidate(f"a{number}"))
    finished.on_next(["a0"])
    assert len(seen) == 5_000


# all of them
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator",
    [
        rate_limit(lambda row: row.id[99], 10),
        limit_concurrency(lambda row: row.id[99], 1, finished=reactivex.never()),
    ],
)
def test_the_error_of_a_users_key_is_the_streams(operator: Any) -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-a-", candidates("a")).pipe(operator))
    time.run()
    assert isinstance(result.error, IndexError)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: pause_while(reactivex.never(), capacity=0), "capacity must be at least 1, not 0"),
        (lambda: rate_limit(letter, 0), "per must be above 0 seconds, not 0"),
        (lambda: rate_limit(letter, 1, limit=0), "limit must be at least 1, not 0"),
        (lambda: rate_limit(letter, 1, capacity=0), "capacity must be at least 1, not 0"),
        (lambda: limit_concurrency(letter, 0, finished=reactivex.never()), "n must be at least 1, not 0"),
        (
            lambda: limit_concurrency(letter, 1, finished=reactivex.never(), patience=0),
            "patience must be above 0",
        ),
        (lambda: limit_concurrency(letter, 1, finished=reactivex.never(), capacity=0), "capacity must be at"),
    ],
)
def test_arguments_are_checked(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
