"""`sink`: batches, order, numbers, refusals, pressure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable
from reactivex.subject import Subject

from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.streams import Backoff, BatchResult, StoredBatch, sink
from reactive_worker.testing.marbles import Recording, VirtualTime, event, text_chunk

Answer = Callable[[list[TodoEvent]], Observable[BatchResult]]


class RefusedForNow(Exception):
    pass


class RefusedForGood(Exception):
    pass


class Rig:
    """A `sink` fed by a subject, into whatever the test says."""

    def __init__(self, answer: Answer | None = None, **options: Any) -> None:
        self.time = VirtualTime(step=0.01)
        self.said: Subject[TodoEvent] = Subject()
        self.batches: list[tuple[float, list[tuple[str, int | None]]]] = []
        self.lost: list[tuple[str, int]] = []
        self.errors: list[tuple[TodoEvent, Exception]] = []
        self.retries: list[tuple[int, float]] = []
        self.pressure: list[bool] = []
        self.run_pressure: list[tuple[str, bool]] = []
        self.replacement: Callable[[TodoEvent], TodoEvent | None] = lambda said: None
        self._answer = answer or (lambda events: self.takes(0.005))
        operator = sink(
            self._store,
            **(
                {
                    "first_seq": lambda said: 2,
                    "retryable": lambda error: isinstance(error, RefusedForNow),
                    "on_lost": self._lost,
                    "on_error": self._error,
                    "on_retry": lambda error, tries, delay: self.retries.append((tries, delay)),
                    "on_pressure": self.pressure.append,
                    "on_run_pressure": lambda run, full: self.run_pressure.append((run[0], full)),
                    "backoff": Backoff(0.1, 0.4, jitter=0.0),
                }
                | options
            ),
        )
        self.result: Recording[StoredBatch] = self.time.observe(self.said.pipe(operator))

    def takes(self, seconds: float, result: BatchResult | None = None) -> Observable[BatchResult]:
        done = reactivex.just(result or BatchResult(), scheduler=self.time.scheduler)
        return done.pipe(reactivex.operators.delay(seconds, scheduler=self.time.scheduler))

    def _store(self, events: list[TodoEvent]) -> Observable[BatchResult]:
        self.batches.append((self.time.seconds, [(said.todolist_id, said.seq) for said in events]))
        return self._answer(events)

    def _lost(self, runs: Collection[tuple[str, int]]) -> None:
        self.lost.extend(runs)

    def _error(self, said: TodoEvent, error: Exception) -> TodoEvent | None:
        self.errors.append((said, error))
        return self.replacement(said)

    def say(self, *events: TodoEvent) -> None:
        for said in events:
            self.said.on_next(said)

    @property
    def stored(self) -> list[tuple[str, int | None]]:
        return [(said.todolist_id, said.seq) for batch in self.result.values for said in batch.events]

    def stored_of(self, task: str) -> list[tuple[int | None, str | None]]:
        """Numbers and messages of one task's events, in the order they were stored in."""
        events = [said for batch in self.result.values for said in batch.events]
        return [(said.seq, said.message) for said in events if said.todolist_id == task]


def said_by(task: str, attempt: int, events: list[TodoEvent]) -> bool:
    """Whether one of these is of this run."""
    return any((said.todolist_id, said.attempt) == (task, attempt) for said in events)


def end_of(task: str, **columns: Any) -> TodoEvent:
    return event(task, outcome=Outcome("completed"), **columns)


def test_a_batch_leaves_when_its_first_event_has_waited_long_enough() -> None:
    rig = Rig()
    rig.say(event("a"))
    rig.time.advance(0.015)
    rig.say(event("b"))
    rig.time.advance(1)
    assert rig.batches == [(0.02, [("a", 2), ("b", 2)])]
    assert rig.result.times == [0.025]


def test_a_full_batch_leaves_at_once() -> None:
    rig = Rig(max_batch=2)
    rig.say(*(event("a") for _ in range(5)))
    rig.time.advance(1)
    # The fifth still waits for company, but no longer than any other.
    assert rig.batches == [(0, [("a", 2), ("a", 3)]), (0.005, [("a", 4), ("a", 5)]), (0.02, [("a", 6)])]


def test_what_waited_longer_than_the_batch_in_flight_leaves_with_the_next() -> None:
    rig = Rig(lambda events: rig.takes(0.1))
    rig.say(event("a"))
    rig.time.advance(0.03)
    rig.say(event("b"))
    rig.time.advance(1)
    assert [at for at, _ in rig.batches] == [0.02, 0.12]


def test_one_batch_is_in_flight_and_order_is_kept() -> None:
    rig = Rig(lambda events: rig.takes(0.1), max_batch=3)
    for number in range(10):
        rig.say(event("ab"[number % 2]))
    rig.time.advance(2)
    assert [at for at, _ in rig.batches] == [0, 0.1, 0.2, 0.3]
    assert rig.stored == [("ab"[number % 2], 2 + number // 2) for number in range(10)]


def test_each_run_counts_from_what_its_claim_left() -> None:
    rig = Rig(first_seq=lambda said: {"a": 2, "b": 17}[said.todolist_id] + 100 * (said.attempt - 1))
    rig.say(event("a"), event("b"), event("a"), event("a", attempt=2))
    rig.time.advance(1)
    rig.say(event("b"), event("a", attempt=2))
    rig.time.advance(1)
    assert rig.stored == [("a", 2), ("b", 17), ("a", 3), ("a", 102), ("b", 18), ("a", 103)]


def test_chunks_merge_within_a_batch_and_take_one_number() -> None:
    rig = Rig(max_batch=3)
    rig.say(text_chunk("a", "H", append=False), text_chunk("a", "ello"), event("a"))
    rig.time.advance(1)
    assert rig.stored == [("a", 2), ("a", 3)]


def test_merging_can_be_switched_off() -> None:
    rig = Rig(merge_chunks=False)
    rig.say(text_chunk("a", "H"), text_chunk("a", "ello"))
    rig.time.advance(1)
    assert rig.stored == [("a", 2), ("a", 3)]


def test_a_batch_refused_for_now_is_tried_again_unchanged_ever_more_slowly() -> None:
    refusals = 4
    seen: list[list[str]] = []

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        nonlocal refusals
        refusals -= 1
        seen.append([said.id for said in events])
        return reactivex.throw(RefusedForNow()) if refusals >= 0 else rig.takes(0)

    rig = Rig(answer)
    rig.say(event("a"))
    rig.time.advance(0.05)
    rig.say(event("a"))
    rig.time.advance(5)
    assert [at for at, _ in rig.batches[:5]] == [0.02, 0.12, 0.32, 0.72, 1.12]
    assert seen[:5] == [seen[0]] * 5
    assert rig.retries == [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.4)]
    assert rig.stored == [("a", 2), ("a", 3)]
    assert rig.errors == []


@pytest.mark.parametrize("how", [lambda: {}["no store"], reactivex.empty], ids=["raises", "says nothing"])
def test_a_store_without_an_answer_is_a_refusal(how: Callable[[], Any]) -> None:
    answers = [lambda: rig.takes(0), how]
    rig = Rig(lambda events: answers.pop()(), retryable=lambda error: True)
    rig.say(event("a"))
    rig.time.advance(5)
    assert (rig.stored, len(rig.retries)) == ([("a", 2)], 1)


def test_the_pace_starts_anew_after_a_success() -> None:
    answers = [True, False, True, False, False]
    rig = Rig(lambda events: rig.takes(0) if answers.pop() else reactivex.throw(RefusedForNow()))
    rig.say(event("a"))
    rig.time.advance(1)
    rig.say(event("a"))
    rig.time.advance(1)
    assert rig.retries == [(1, 0.1), (2, 0.2), (1, 0.1)]


def refuse(*bad: str) -> Answer:
    """A store that refuses every batch with an event of such a message, and stores nothing of it."""

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        if any(said.message in bad for said in events):
            return reactivex.throw(RefusedForGood())
        return reactivex.just(BatchResult())

    return answer


def test_the_offending_event_is_found_and_leaves_no_gap() -> None:
    rig = Rig(refuse("bad"))
    rig.say(*(event("ab"[n % 2], message="bad" if n == 4 else str(n)) for n in range(8)))
    rig.time.advance(1)
    assert [said.message for said, _ in rig.errors] == ["bad"]
    assert isinstance(rig.errors[0][1], RefusedForGood)
    assert rig.stored_of("a") == [(2, "0"), (3, "2"), (4, "6")]
    assert rig.stored_of("b") == [(2, "1"), (3, "3"), (4, "5"), (5, "7")]
    rig.say(event("a"))
    rig.time.advance(1)
    assert rig.stored[-1] == ("a", 5)


def test_an_outcome_that_cannot_be_stored_is_replaced() -> None:
    rig = Rig(refuse("bad"))
    rig.replacement = lambda said: event(said.todolist_id, message="instead", outcome=Outcome("failed"))
    rig.say(event("a"), end_of("a", message="bad"), event("b"))
    rig.time.advance(1)
    assert rig.stored_of("a") == [(2, None), (3, "instead")]
    assert rig.stored_of("b") == [(2, None)]


def test_a_replacement_that_is_refused_too_is_left_out() -> None:
    rig = Rig(refuse("bad"))
    rig.replacement = lambda said: event(said.todolist_id, message="bad")
    rig.say(event("a", message="bad"), event("a"))
    rig.time.advance(1)
    assert len(rig.errors) == 2
    assert rig.stored == [("a", 2)]


def test_a_refusal_for_now_in_the_middle_of_splitting_loses_nothing() -> None:
    shaky = refuse("bad")
    tries = 0

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        nonlocal tries
        tries += 1
        return reactivex.throw(RefusedForNow()) if tries % 2 else shaky(events)

    rig = Rig(answer)
    rig.say(*(event("a", message="bad" if n in (1, 6) else str(n)) for n in range(8)))
    rig.time.advance(60)
    assert [s.message for batch in rig.result.values for s in batch.events] == ["0", "2", "3", "4", "5", "7"]
    assert [seq for _, seq in rig.stored] == [2, 3, 4, 5, 6, 7]


def test_events_of_a_run_nobody_knows_are_told_and_left_out() -> None:
    rig = Rig(first_seq=lambda said: {"a": 2}[said.todolist_id])
    rig.say(event("x"), event("a"))
    rig.time.advance(1)
    rig.say(event("x"))
    rig.time.advance(1)
    assert (rig.stored, [said.todolist_id for said, _ in rig.errors]) == ([("a", 2)], ["x", "x"])


def test_lost_runs_are_told_and_say_no_more() -> None:
    rig = Rig(lambda events: rig.takes(0.005, BatchResult([("a", 1)] if said_by("a", 1, events) else [])))
    rig.say(event("a"), event("b"))
    rig.time.advance(0.022)
    rig.say(event("a"), event("b"), event("a", attempt=2))
    rig.time.advance(1)
    assert rig.lost == [("a", 1)]
    assert [batch.lost for batch in rig.result.values] == [(("a", 1),), ()]
    assert [batch for _, batch in rig.batches] == [[("a", 2), ("b", 2)], [("b", 3), ("a", 2)]]


def test_after_its_outcome_a_run_is_forgotten() -> None:
    asked: list[str] = []
    rig = Rig(first_seq=lambda said: (asked.append(said.todolist_id), 2)[1])
    rig.say(event("a"), end_of("a"))
    rig.time.advance(1)
    rig.say(event("a"))
    rig.time.advance(1)
    assert asked == ["a", "a"]


def test_pressure_comes_above_capacity_and_goes_below_half_of_it() -> None:
    rig = Rig(lambda events: rig.takes(1.0), capacity=8, max_batch=2)
    rig.say(*(event("a") for _ in range(10)))
    assert rig.pressure == []
    rig.say(event("a"), event("a"))
    assert rig.pressure == [True]
    times: list[int] = []
    rig.said.subscribe(lambda _: times.append(len(rig.pressure)))
    rig.time.advance(2.5)
    assert rig.pressure == [True]
    rig.time.advance(1)
    assert rig.pressure == [True, False]


def test_completion_stores_what_waits_first() -> None:
    rig = Rig(max_batch=2)
    rig.say(*(event("a") for _ in range(3)))
    rig.said.on_completed()
    rig.time.advance(1)
    assert rig.stored == [("a", 2), ("a", 3), ("a", 4)]
    assert [(m.time, m.kind) for m in rig.result.messages][-1] == (0.01, "completed")


def test_the_source_error_comes_after_what_waits() -> None:
    error = RuntimeError("the source broke")
    rig = Rig()
    rig.say(event("a"))
    rig.said.on_error(error)
    rig.time.advance(1)
    assert [m.kind for m in rig.result.messages] == ["next", "error"]
    assert rig.result.error is error


def test_disposal_stops_retries_and_lets_go_of_the_store() -> None:
    rig = Rig(lambda events: reactivex.throw(RefusedForNow()))
    rig.say(event("a"))
    rig.time.advance(0.05)
    rig.result.dispose()
    rig.time.advance(5)
    assert len(rig.batches) == 1

    rig = Rig(lambda events: slow)
    slow = rig.time.cold("-" * 50 + "|")
    rig.say(event("a"))
    rig.time.advance(0.05)
    rig.result.dispose()
    assert slow.subscriptions == [(0.02, 0.05)]


def test_a_store_that_answers_at_once_does_not_grow_the_stack() -> None:
    rig = Rig(lambda events: reactivex.just(BatchResult()), max_batch=1, max_delay=10.0)
    answer: Subject[BatchResult] = Subject()
    rig._answer = lambda events: answer if len(rig.batches) == 1 else reactivex.just(BatchResult())
    rig.say(*(event("a") for _ in range(10_000)))
    assert len(rig.batches) == 1
    answer.on_next(BatchResult())
    rig.said.on_completed()
    rig.time.advance(0)
    assert [seq for _, seq in rig.stored] == list(range(2, 10_002))
    assert rig.result.completed


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "ok", "ok", "bad"])), max_size=40),
    st.lists(st.sampled_from([True, True, False]), max_size=40),
    st.integers(1, 6),
)
def test_numbers_have_no_gap_whatever_is_refused(
    said: list[tuple[str, str]], shaky: list[bool], max_batch: int
) -> None:
    table: dict[str, dict[str, tuple[int | None, str | None]]] = defaultdict(dict)

    def answer(events: list[TodoEvent]) -> Observable[BatchResult]:
        if shaky and not shaky.pop():
            return reactivex.throw(RefusedForNow())
        if any(each.message == "bad" for each in events):
            return reactivex.throw(RefusedForGood())
        for each in events:
            known = table[each.todolist_id].setdefault(each.id, (each.seq, each.message))
            assert known == (each.seq, each.message)
        return reactivex.just(BatchResult())

    rig = Rig(answer, max_batch=max_batch)
    for task, message in said:
        rig.say(event(task, message=message))
    rig.said.on_completed()
    rig.time.run()
    for task in "abc":
        good = [message for each, message in said if each == task and message == "ok"]
        assert [seq for seq, _ in table[task].values()] == list(range(2, 2 + len(good)))
    assert len(rig.errors) == sum(message == "bad" for _, message in said)
    assert rig.result.completed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_batch": 0}, "max_batch must be at least 1, not 0"),
        ({"max_delay": -1}, "max_delay must be at least 0 seconds, not -1"),
        ({"capacity": 0}, "capacity must be at least 1, not 0"),
        ({"max_bytes": 0}, "max_bytes must be at least 1, not 0"),
        ({"capacity_bytes": -1}, "capacity_bytes must be at least 1, not -1"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rig(**options)
