"""`polling_sweep`: every reason to sweep, one sweep at a time, and failures that do not end it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable
from reactivex.subject import BehaviorSubject, Subject

from reactive_worker.models import Candidate, SweepResult
from reactive_worker.streams import Backpressure, polling_sweep
from reactive_worker.testing.marbles import Recording, VirtualTime, candidates, moment


def result(names: str = "", *, due: float | None = None, now: float = 0.0, full: bool = False) -> SweepResult:
    found = tuple(candidates(names).values())
    return SweepResult(found, None if due is None else moment(due), 0, moment(now), full)


Sweep = Callable[[VirtualTime], Observable[SweepResult]]


class Rig:
    """A `polling_sweep` whose sweeps take a second, unless the test says otherwise."""

    def __init__(self, sweep: Sweep | None = None, **options: Any) -> None:
        self.time = VirtualTime()
        self.kicks: Subject[Any] = Subject()
        self.sweeps: list[float] = []
        self.errors: list[str] = []
        self.results: list[SweepResult] = []
        self._sweep = sweep or (lambda time: time.cold("-r|", {"r": result()}))
        swept = polling_sweep(
            self._note_sweep,
            **(
                {
                    "polling_interval": 5.0,
                    "sweep_interval": 30.0,
                    "healthy": reactivex.never(),
                    "kicks": self.kicks,
                    "on_error": lambda error: self.errors.append(str(error)),
                    "on_result": self.results.append,
                    "jitter": 0.0,
                    "random": lambda: 0.0,
                }
                | options
            ),
        )
        self.result: Recording[Candidate] = self.time.observe(swept)

    def _note_sweep(self) -> Observable[SweepResult]:
        self.sweeps.append(self.time.seconds)
        return self._sweep(self.time)

    def run(self, until: float) -> list[float]:
        self.time.run(until)
        return self.sweeps


def test_it_sweeps_at_once_and_then_every_polling_interval() -> None:
    # A sweep takes a second, and the interval begins when it ends.
    assert Rig().run(20) == [0, 6, 12, 18]


def test_while_push_is_healthy_it_sweeps_rarely() -> None:
    assert Rig(healthy=BehaviorSubject(True)).run(70) == [0, 31, 62]


def test_it_works_without_health_and_kicks() -> None:
    assert Rig(healthy=None, kicks=None).run(10) == [0, 6]


def test_candidates_come_in_the_databases_order_after_the_result() -> None:
    order: list[str] = []
    time = VirtualTime()
    swept = polling_sweep(
        lambda: time.cold("-r|", {"r": result("cab")}),
        on_error=lambda error: None,
        on_result=lambda swept: order.append("result"),
    )
    swept.subscribe(lambda row: order.append(row.id), scheduler=time.scheduler)
    time.run(2)
    assert order == ["result", "c", "a", "b"]


def test_losing_health_sweeps_at_once_and_often_from_then_on() -> None:
    healthy = BehaviorSubject(True)
    rig = Rig(healthy=healthy)
    rig.run(10)
    healthy.on_next(False)
    assert rig.run(20) == [0, 10, 16]


def test_gaining_health_sweeps_once_for_what_nobody_heard() -> None:
    healthy = BehaviorSubject(False)
    rig = Rig(healthy=healthy)
    rig.run(3)
    healthy.on_next(True)
    healthy.on_next(True)
    assert rig.run(36) == [0, 3, 34]


def test_a_kick_sweeps_at_once_and_starts_the_interval_anew() -> None:
    rig = Rig()
    rig.run(4)
    rig.kicks.on_next("now")
    assert rig.run(12) == [0, 4, 10]


def test_kicks_during_a_sweep_are_one_sweep_afterwards() -> None:
    rig = Rig(lambda time: time.cold("---r|", {"r": result()}))
    rig.run(1)
    for _ in range(5):
        rig.kicks.on_next(None)
    assert rig.run(10) == [0, 3]


def test_a_slow_sweep_is_never_overtaken() -> None:
    rig = Rig(lambda time: time.cold("-" * 20 + "r|", {"r": result()}))
    assert rig.run(26) == [0, 25]


def test_it_sweeps_when_the_next_row_falls_due() -> None:
    answers = [result(), result(due=102, now=100)]
    rig = Rig(lambda time: time.cold("-r|", {"r": answers.pop() if answers else result()}))
    # The database is at 100 when we are at 1: only the difference counts.
    assert rig.run(8) == [0, 3]


def test_a_row_due_after_the_interval_changes_nothing() -> None:
    rig = Rig(lambda time: reactivex.just(result(due=60)))
    assert rig.run(11) == [0, 5, 10]


def test_a_row_due_already_is_left_to_whoever_runs_low() -> None:
    rig = Rig(lambda time: reactivex.just(result("a", due=0, full=True)))
    assert rig.run(11) == [0, 5, 10]


def test_workers_do_not_meet_on_the_same_row() -> None:
    rig = Rig(lambda time: reactivex.just(result(due=2, now=0)), random=lambda: 0.5)
    assert rig.run(3) == [0, 2.05]


def test_a_failing_sweep_is_told_and_tried_again_ever_more_slowly() -> None:
    rig = Rig(lambda time: reactivex.throw(RuntimeError("no database")))
    assert rig.run(100) == [0, 1, 3, 7, 15, 31, 61, 91]
    assert rig.errors == ["no database"] * 8
    assert rig.result.messages == []


def test_a_sweep_that_raises_is_a_failing_sweep() -> None:
    answers: list[Callable[[], Any]] = [lambda: reactivex.just(result("a")), lambda: {}["no database"]]
    rig = Rig(lambda time: answers.pop()())
    assert rig.run(4) == [0, 1]
    assert [row.id for row in rig.result.values] == ["a"]


def test_after_a_success_failures_start_small_again() -> None:
    answers = ["bad", "bad", "good", "bad", "bad"]
    rig = Rig(
        lambda time: reactivex.just(result()) if answers.pop() == "good" else reactivex.throw(RuntimeError()),
    )
    assert rig.run(10) == [0, 1, 3, 8, 9]


def test_a_short_interval_is_kept_by_the_first_retry() -> None:
    rig = Rig(lambda time: reactivex.throw(RuntimeError()), polling_interval=0.25)
    assert rig.run(2) == [0, 0.25, 0.75, 1.75]


def test_a_sweep_that_says_nothing_is_followed_by_the_next() -> None:
    assert Rig(lambda time: reactivex.empty()).run(6) == [0, 5]


def test_health_that_errors_is_no_health() -> None:
    healthy = BehaviorSubject(True)
    rig = Rig(healthy=healthy)
    rig.run(10)
    healthy.on_error(RuntimeError("deaf"))
    assert rig.run(20) == [0, 10, 16]
    assert rig.errors == ["deaf"]


def test_kicks_that_error_or_end_do_not_end_it() -> None:
    rig = Rig()
    rig.kicks.on_error(RuntimeError("kicked out"))
    assert rig.run(8) == [0, 6]
    assert rig.errors == ["kicked out"]


def test_kicks_from_within_a_sweeps_candidates_do_not_grow_the_stack() -> None:
    left = 2_000

    def kick(row: Candidate) -> None:
        nonlocal left
        left -= 1
        if left:
            kicks.on_next(None)

    def answers_at_once(observer: Any, scheduler: Any = None) -> Any:
        observer.on_next(result("a"))
        observer.on_completed()

    time = VirtualTime()
    kicks: Subject[Any] = Subject()
    swept = polling_sweep(lambda: Observable(answers_at_once), kicks=kicks, on_error=lambda error: None)
    swept.subscribe(kick, scheduler=time.scheduler)
    assert left == 0


def test_disposal_ends_the_sweep_the_timer_and_the_listening() -> None:
    healthy = BehaviorSubject(False)
    sweeps: list[Any] = []

    def sweep(time: VirtualTime) -> Observable[SweepResult]:
        sweeps.append(time.cold("---r|", {"r": result("a")}))
        return sweeps[-1]

    rig = Rig(sweep, healthy=healthy)
    rig.run(1)
    rig.result.dispose()
    rig.kicks.on_next(None)
    assert rig.run(30) == [0]
    assert sweeps[0].subscriptions == [(0, 1)]
    assert (rig.kicks.observers, healthy.observers, rig.result.messages) == ([], [], [])


def test_disposal_between_sweeps_stops_the_timer() -> None:
    rig = Rig()
    rig.run(3)
    rig.result.dispose()
    assert rig.run(30) == [0]


def test_two_subscribers_sweep_for_themselves() -> None:
    time = VirtualTime()
    swept = polling_sweep(
        lambda: time.cold("-r|", {"r": result("a")}), on_error=lambda error: None, jitter=0.0
    )
    first, second = time.observe(swept), time.observe(swept)
    time.run(8)
    first.dispose()
    time.run(14)
    assert (first.times, second.times) == ([1, 7], [1, 7, 13])


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_jitter_stays_within_its_bounds(number: float, healthy: bool) -> None:
    rig = Rig(
        lambda time: reactivex.just(result()),
        jitter=0.1,
        random=lambda: number,
        healthy=BehaviorSubject(healthy),
        polling_interval=10.0,
        sweep_interval=20.0,
    )
    rig.run(50)
    interval = 20.0 if healthy else 10.0
    for before, after in zip(rig.sweeps, rig.sweeps[1:], strict=False):
        assert 0.9 * interval - 1e-5 <= after - before <= 1.1 * interval + 1e-5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"polling_interval": 0}, "polling_interval must be above 0 seconds, not 0"),
        ({"sweep_interval": -1}, "sweep_interval must be above 0 seconds, not -1"),
        ({"jitter": 1}, r"jitter must be in \[0, 1\), not 1"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rig(**options)


def test_the_other_side_of_the_pipeline_hears_each_sweep_and_may_want_one() -> None:
    backpressure = Backpressure()
    heard: list[tuple[str, ...]] = []
    rig = Rig(lambda time: time.cold("(r,|)", {"r": result("ab")}), backpressure=backpressure)
    backpressure.swept.subscribe(lambda swept: heard.append(tuple(row.id for row in swept.candidates)))
    rig.run(2)
    backpressure.wanted.on_next(None)
    rig.run(4)
    assert rig.sweeps == [0.0, 2.0]
    assert heard == [("a", "b"), ("a", "b")]
    rig.result.dispose()
    assert not backpressure.wanted.observers
