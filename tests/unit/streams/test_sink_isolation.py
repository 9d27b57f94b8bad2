"""`sink`: one run that cannot be stored harms only itself, and bytes are counted as well as events."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable

from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.streams import Backoff, BatchResult
from reactive_worker.testing.marbles import event
from tests.unit.streams.test_sink import RefusedForGood, RefusedForNow, Rig, end_of

SIZES = {"size": lambda said: int(said.message or 1)}


def sized(task: str, size: int, **columns: Any) -> TodoEvent:
    return event(task, message=str(size), **columns)


def total(events: list[TodoEvent]) -> int:
    return sum(int(said.message or 1) for said in events)


# -- bytes ---------------------------------------------------------------------------------------------------


def test_a_batch_holds_no_more_bytes_than_it_may() -> None:
    seen: list[list[int]] = []
    rig = Rig(lambda events: (seen.append([total(events)]), rig.takes(0))[1], max_bytes=100, **SIZES)
    rig.say(*(sized("abcdef"[n], 40) for n in range(6)))
    rig.time.advance(1)
    assert [size for (size,) in seen] == [80, 80, 80]
    assert len(rig.stored) == 6


def test_bytes_make_a_batch_leave_before_its_time() -> None:
    rig = Rig(max_bytes=100, **SIZES)
    rig.say(sized("a", 60), sized("b", 60))
    assert [at for at, _ in rig.batches] == [0]
    rig.time.advance(1)
    assert rig.batches == [(0, [("a", 2)]), (0.02, [("b", 2)])]


def test_an_event_larger_than_a_batch_goes_alone() -> None:
    rig = Rig(max_bytes=100, **SIZES)
    rig.say(sized("a", 10), sized("b", 5_000), sized("c", 10), sized("d", 10))
    rig.time.advance(1)
    assert [events for _, events in rig.batches] == [[("a", 2)], [("b", 2)], [("c", 2), ("d", 2)]]


def test_pressure_counts_bytes() -> None:
    rig = Rig(lambda events: rig.takes(1.0), capacity_bytes=1_000, max_bytes=300, **SIZES)
    rig.say(*(sized("a", 250) for _ in range(5)))
    # One is in flight, four wait: not more than the capacity.
    assert rig.pressure == []
    rig.say(sized("b", 1))
    assert rig.pressure == [True]
    rig.time.advance(2.5)
    assert rig.pressure == [True]
    rig.time.advance(1)
    assert rig.pressure == [True, False]


def test_without_a_size_bytes_are_not_counted() -> None:
    rig = Rig(max_bytes=1, capacity_bytes=1)
    rig.say(*(sized("a", 1_000) for _ in range(50)))
    rig.time.advance(1)
    assert (len(rig.batches), rig.pressure) == (1, [])


def test_ten_thousand_events_of_a_mebibyte_do_not_fill_the_memory() -> None:
    held = 0
    rig = Rig(lambda events: reactivex.never(), size=lambda said: 1024 * 1024)
    while not rig.pressure and held < 10_000:
        rig.say(event("a"))
        held += 1
    assert held < 100


# -- a store that is slow ------------------------------------------------------------------------------------


def slow(rig: Rig, most: int, seconds: float = 30.0) -> Observable[BatchResult]:
    """Answers what is small in time, and refuses the rest for now after so many seconds."""
    return rig.takes(0.01) if total(rig.last) <= most else rig.fails(seconds)


class SlowRig(Rig):
    def __init__(self, most: int, **options: Any) -> None:
        self.last: list[TodoEvent] = []
        self.tries: list[tuple[int, int]] = []

        def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
            self.last = events
            self.tries.append((len(events), total(events)))
            return slow(self, most)

        super().__init__(answer, **(SIZES | options))

    def fails(self, seconds: float) -> Observable[BatchResult]:
        late = reactivex.timer(seconds, scheduler=self.time.scheduler)
        return late.pipe(reactivex.operators.flat_map(reactivex.throw(RefusedForNow())))


def test_two_hundred_events_are_halved_until_a_slow_store_takes_them() -> None:
    rig = SlowRig(750_000)
    rig.say(*(sized(f"task {n}", 9_000) for n in range(200)), sized("a small one", 1))
    rig.time.advance(300)
    assert len(rig.stored) == 201
    refused = [size for _, size in rig.tries if size > 750_000]
    # All of it, then each half.
    assert refused == [1_800_000, 900_000, 900_000]


def test_batches_stay_small_while_the_store_is_slow_and_grow_again_with_care() -> None:
    rig = SlowRig(750_000)
    for _ in range(20):
        rig.say(*(sized(f"task {n}", 9_000) for n in range(200)))
        rig.time.advance(120)
    assert len(rig.stored) == 4_000
    refused = sum(size > 750_000 for _, size in rig.tries)
    assert refused <= len(rig.tries) // 4


def test_one_event_too_large_for_a_slow_store_backs_off_alone() -> None:
    rig = SlowRig(1_000)
    rig.say(sized("big", 5_000), *(sized(f"task {n}", 10) for n in range(50)))
    rig.time.advance(200)
    assert {task for task, _ in rig.stored} == {f"task {n}" for n in range(50)}
    before = len(rig.tries)
    for n in range(100):
        rig.say(sized(f"later {n}", 10))
        rig.time.advance(1)
        # While the big one is under way for 30 s, all others pass.
        assert rig.stored[-1] == (f"later {n}", 2)
    alone = [count for count, size in rig.tries[before:] if size == 5_000]
    assert 2 <= len(alone) <= 4
    assert set(alone) == {1}


# -- a run that is held up -----------------------------------------------------------------------------------


class LockedRig(Rig):
    """A store in which rows can be locked: those are reported, or hang the whole call, as the test says."""

    def __init__(self, *locked: str, hangs: bool = False, **options: Any) -> None:
        self.locked = set(locked)
        self.seen: list[list[str]] = []

        def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
            names = [said.todolist_id for said in events]
            self.seen.append(names)
            held = {
                (said.todolist_id, said.attempt): RefusedForNow() for said in events
                if said.todolist_id in self.locked
            }  # fmt: skip
            if held and hangs:
                late = reactivex.timer(8.0, scheduler=self.time.scheduler)
                return late.pipe(reactivex.operators.flat_map(reactivex.throw(RefusedForNow())))
            return self.takes(0.005, BatchResult(busy=held))

        super().__init__(answer, **options)


def test_a_locked_run_is_tried_again_alone_while_its_neighbours_end() -> None:
    rig = LockedRig("locked")
    rig.say(event("locked", message="1"), *(end_of(name) for name in "abc"), end_of("locked", message="2"))
    rig.time.advance(60)
    assert {task for task, _ in rig.stored} == set("abc")
    assert all(names == ["locked"] * len(names) for names in rig.seen[1:])
    # Ever more slowly: 0.1, 0.2, 0.4, 0.4 ... and not with every batch of the others.
    assert len(rig.seen) < 160
    rig.locked.clear()
    rig.time.advance(1)
    assert rig.stored_of("locked") == [(2, "1"), (3, "2")]


def test_a_call_that_hangs_on_a_locked_run_holds_up_nobody_else_for_long() -> None:
    rig = LockedRig("locked", hangs=True)
    rig.say(end_of("locked"), *(end_of(f"task {n}") for n in range(5)))
    # The culprit is found by halving: a few calls of 8 s; from then on it is apart.
    rig.time.advance(40)
    assert len(rig.stored) == 5
    for n in range(200):
        rig.say(end_of(f"later {n}"))
        rig.time.advance(0.5)
    assert len(rig.stored) == 205
    rig.locked.clear()
    rig.time.advance(9)
    assert rig.stored_of("locked") == [(2, None)]


def test_what_a_run_aside_goes_on_saying_stays_in_order() -> None:
    rig = LockedRig("a")
    for n in range(30):
        rig.say(event("a", message=str(n)), event("b", message=str(n)))
        rig.time.advance(0.05)
    assert len(rig.stored_of("b")) == 30
    rig.locked.clear()
    for n in range(30, 60):
        rig.say(event("a", message=str(n)))
        rig.time.advance(0.05)
    rig.time.advance(2)
    assert rig.stored_of("a") == [(n + 2, str(n)) for n in range(60)]


def test_a_run_aside_that_talks_on_is_asked_to_wait_and_nobody_else_is() -> None:
    rig = LockedRig("a", capacity=100)
    for _ in range(30):
        rig.say(event("a"), event("b"))
        rig.time.advance(0.1)
    assert (rig.run_pressure, rig.pressure) == ([("a", True)], [])
    rig.locked.clear()
    rig.time.advance(5)
    assert (rig.run_pressure, rig.pressure) == ([("a", True), ("a", False)], [])


def test_bytes_of_a_run_aside_count_for_it_and_for_all() -> None:
    rig = LockedRig("a", "b", capacity_bytes=1_000, **SIZES)
    rig.say(sized("a", 90))
    rig.time.advance(0.1)
    assert rig.run_pressure == []
    rig.say(sized("a", 20))
    rig.time.advance(0.1)
    assert (rig.run_pressure, rig.pressure) == ([("a", True)], [])
    rig.say(sized("b", 950))
    rig.time.advance(0.1)
    assert rig.run_pressure == [("a", True), ("b", True)]
    assert rig.pressure[-1:] == [True]


def test_two_attempts_of_a_task_are_two_runs() -> None:
    lost = BatchResult(lost=[("a", 1)])
    rig = Rig(lambda events: rig.takes(0.005, lost if events[0].attempt == 1 else None))
    rig.say(event("a", attempt=1), event("b"))
    rig.time.advance(0.022)
    rig.say(event("a", attempt=2), event("a", attempt=1))
    rig.time.advance(1)
    assert rig.lost == [("a", 1)]
    assert [(said.todolist_id, said.attempt) for batch in rig.result.values for said in batch.events] == [
        ("b", 1),
        ("a", 2),
    ]


def test_a_busy_attempt_does_not_hold_up_the_next_one() -> None:
    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        held = {(said.todolist_id, said.attempt): RefusedForNow() for said in events if said.attempt == 1}
        return rig.takes(0.005, BatchResult(busy=held))

    rig = Rig(answer)
    rig.say(event("a", attempt=1), event("a", attempt=2))
    rig.time.advance(0.05)
    rig.say(end_of("a", attempt=2))
    rig.time.advance(0.1)
    assert [(said.attempt, said.seq) for batch in rig.result.values for said in batch.events] == [
        (2, 2),
        (2, 3),
    ]


def test_a_refused_run_is_taken_apart_and_the_others_of_its_batch_are_stored() -> None:
    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        bad = {(said.todolist_id, said.attempt): RefusedForGood() for said in events if said.message == "bad"}
        return rig.takes(0.005, BatchResult(refused=bad))

    rig = Rig(answer)
    rig.say(*(event("ab"[n % 2], message="bad" if n == 4 else str(n)) for n in range(8)))
    rig.time.advance(1)
    assert [said.message for said, _ in rig.errors] == ["bad"]
    assert rig.stored_of("a") == [(2, "0"), (3, "2"), (4, "6")]
    assert rig.stored_of("b") == [(2, "1"), (3, "3"), (4, "5"), (5, "7")]
    # The batch as it was, then only what one run said.
    assert all(len({task for task, _ in events}) == 1 for _, events in rig.batches[1:])


def test_an_end_that_is_refused_twice_is_given_up_and_told_twice() -> None:
    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        bad = {(said.todolist_id, said.attempt): RefusedForGood() for said in events if said.outcome}
        return rig.takes(0.005, BatchResult(refused=bad))

    rig = Rig(answer)
    rig.replacement = lambda said: event(said.todolist_id, message="instead", outcome=Outcome("failed"))
    rig.say(event("a"), end_of("a"), event("b"))
    rig.time.advance(1)
    assert [said.message for said, _ in rig.errors] == [None, "instead"]
    assert rig.stored_of("a") == [(2, None)]
    assert rig.stored_of("b") == [(2, None)]


# -- an outage -----------------------------------------------------------------------------------------------


def test_an_outage_is_one_call_at_a_time_and_ends_at_once_for_everybody() -> None:
    away = True

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        return reactivex.throw(RefusedForNow()) if away else rig.takes(0)

    rig = Rig(answer, backoff=Pace)
    for n in range(600):
        rig.say(event(f"task {n % 40}"))
        rig.time.advance(1)
    # Ten minutes at two lines that wait up to ten seconds each.
    assert len(rig.batches) < 150
    away = False
    rig.time.advance(12)
    assert len(rig.stored) == 600
    for task in range(40):
        assert [seq for seq, _ in rig.stored_of(f"task {task}")] == list(range(2, 17))


def test_completion_waits_for_what_is_aside() -> None:
    rig = LockedRig("a")
    rig.say(end_of("a"), end_of("b"))
    rig.said.on_completed()
    rig.time.advance(5)
    assert not rig.result.completed
    rig.locked.clear()
    rig.time.advance(1)
    assert rig.result.completed
    assert sorted(rig.stored) == [("a", 2), ("b", 2)]


def test_disposal_lets_go_of_both_lines() -> None:
    calls: list[str] = []

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        if len(rig.batches) == 1:
            return rig.takes(0, BatchResult(busy={("a", 1): RefusedForNow()}))
        name = events[0].todolist_id
        calls.append(f"{name} began")
        hanging: Observable[BatchResult] = reactivex.never()
        return hanging.pipe(reactivex.operators.finally_action(lambda: calls.append(f"{name} ended")))

    rig = Rig(answer)
    rig.say(event("a"), event("b"))
    rig.time.advance(0.05)
    rig.say(event("b"))
    rig.time.advance(1)
    assert sorted(calls) == ["a began", "b began"]
    rig.result.dispose()
    rig.time.advance(60)
    assert sorted(calls) == ["a began", "a ended", "b began", "b ended"]


# -- anything ------------------------------------------------------------------------------------------------


Pace = Backoff(0.1, 10.0, jitter=0.0)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["ok", "ok", "ok", "bad"])), max_size=40),
    st.integers(0, 2**32),
    st.integers(1, 6),
)
def test_whatever_a_store_answers_each_task_is_stored_once_in_order_without_a_gap(
    said: list[tuple[str, str]], seed: int, max_batch: int
) -> None:
    table: dict[str, dict[str, tuple[int | None, str | None]]] = defaultdict(dict)
    chance = random.Random(seed)

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        way = chance.choice(["now", "busy", "each", "all", "all"])
        if way == "now":
            return reactivex.throw(RefusedForNow())
        runs = {(each.todolist_id, each.attempt) for each in events}
        bad = {(each.todolist_id, each.attempt) for each in events if each.message == "bad"}
        busy = {run for run in runs if chance.random() < 0.4} if way == "busy" else set()
        if way == "all" and bad:
            return reactivex.throw(RefusedForGood())
        for each in events:
            run = (each.todolist_id, each.attempt)
            if run not in bad and run not in busy:
                known = table[each.todolist_id].setdefault(each.id, (each.seq, each.message))
                assert known == (each.seq, each.message)
        return reactivex.just(
            BatchResult(
                busy={run: RefusedForNow() for run in busy},
                refused={run: RefusedForGood() for run in bad - busy},
            )
        )

    rig = Rig(answer, max_batch=max_batch)
    for n, (task, message) in enumerate(said):
        rig.say(event(task, message=message, event_type=str(n)))
        if chance.random() < 0.2:
            rig.time.advance(0.05)
    rig.said.on_completed()
    rig.time.run()
    for task in "abcd":
        good = [message for each, message in said if each == task and message == "ok"]
        assert [seq for seq, _ in table[task].values()] == list(range(2, 2 + len(good)))
    assert len(rig.errors) == sum(message == "bad" for _, message in said)
    assert rig.result.completed


@pytest.mark.parametrize("name", ["max_bytes", "capacity_bytes"])
def test_limits_of_bytes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Rig(**{name: 0})
