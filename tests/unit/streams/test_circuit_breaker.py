"""`circuit_breaker`: nothing more into the fire."""

from __future__ import annotations

from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject

from reactive_worker.models import Candidate, Outcome, TodoEvent
from reactive_worker.streams import circuit_breaker, outcome_verdict
from reactive_worker.testing.marbles import VirtualTime, candidate, event


class Rig:
    def __init__(self, **options: Any) -> None:
        self.time = VirtualTime()
        self.rows: Subject[Candidate] = Subject()
        self.events: Subject[TodoEvent] = Subject()
        self.changes: list[tuple[Any, str]] = []
        operator = circuit_breaker(
            self.events,
            on_change=lambda key, state: self.changes.append((key, state)),
            **({"failures": 2, "cool_down": 10.0, "key": lambda row: row.id[0]} | options),
        )
        self.result = self.time.observe(self.rows.pipe(operator))

    def offer(self, ids: str) -> None:
        for id in ids.split():
            self.rows.on_next(candidate(id))

    def end(self, ids: str, kind: str = "completed", **columns: Any) -> None:
        for id in ids.split():
            self.events.on_next(event(id))
            self.events.on_next(event(id, outcome=Outcome(kind, **columns)))  # type: ignore[arg-type]

    @property
    def passed(self) -> str:
        return " ".join(row.id for row in self.result.values)

    @property
    def states(self) -> list[str]:
        return [state for _, state in self.changes]


def opened(**options: Any) -> Rig:
    """A breaker that is open for a since 0 s, with a3 and a4 waiting."""
    rig = Rig(**options)
    rig.offer("a1 a2")
    rig.end("a1 a2", "failed")
    rig.offer("a3 a4")
    return rig


def test_failures_in_a_row_open_it_for_their_key_only() -> None:
    rig = opened()
    rig.offer("b1")
    assert (rig.passed, rig.changes) == ("a1 a2 b1", [("a", "open")])


def test_a_success_between_starts_the_count_anew() -> None:
    rig = Rig()
    rig.offer("a1 a2 a3")
    rig.end("a1", "failed")
    rig.end("a2")
    rig.end("a3", "failed")
    rig.offer("a4")
    assert (rig.passed, rig.states) == ("a1 a2 a3 a4", [])


@pytest.mark.parametrize(
    ("kind", "columns", "verdict"),
    [
        ("completed", {}, True),
        ("input_required", {}, True),
        ("failed", {}, False),
        ("retry", {}, False),
        ("retry", {"counts_as_failure": False}, None),
        ("cancelled", {}, None),
    ],
)
def test_what_outcomes_say(kind: Any, columns: Any, verdict: bool | None) -> None:
    assert outcome_verdict(event("a", outcome=Outcome(kind, **columns))) is verdict
    assert outcome_verdict(event("a")) is None


def test_after_a_while_one_is_tried_and_its_success_lets_all_go() -> None:
    rig = opened()
    rig.time.run(9.9)
    assert rig.passed == "a1 a2"
    rig.time.run(10)
    assert (rig.passed, rig.states) == ("a1 a2 a3", ["open", "half_open"])
    rig.offer("a5")
    rig.end("a3")
    assert rig.passed == "a1 a2 a3 a4 a5"
    assert rig.states == ["open", "half_open", "closed"]
    rig.offer("a6")
    assert rig.passed.endswith("a6")


def test_a_try_that_fails_opens_it_again() -> None:
    rig = opened()
    rig.time.run(10)
    rig.end("a3", "failed")
    assert rig.states[-1] == "open"
    rig.time.run(19.9)
    assert rig.passed == "a1 a2 a3"
    rig.time.run(20)
    assert rig.passed == "a1 a2 a3 a4"


def test_a_try_without_an_answer_is_followed_by_another_and_still_counts() -> None:
    rig = opened()
    rig.time.run(20)
    assert rig.passed == "a1 a2 a3 a4"
    rig.offer("a5 a6")
    assert rig.passed == "a1 a2 a3 a4"
    rig.end("a3")
    assert rig.passed == "a1 a2 a3 a4 a5 a6"


def test_when_nobody_waits_the_next_to_come_is_tried() -> None:
    rig = Rig()
    rig.offer("a1 a2")
    rig.end("a1 a2", "failed")
    rig.time.run(60)
    rig.offer("a3 a4")
    assert rig.passed == "a1 a2 a3"
    rig.end("a3")
    assert rig.passed == "a1 a2 a3 a4"


def test_a_try_that_takes_long_is_not_forgotten_when_nobody_else_waits() -> None:
    rig = Rig()
    rig.offer("a1 a2")
    rig.end("a1 a2", "failed")
    rig.offer("a3")
    rig.time.run(60)
    rig.end("a3")
    assert rig.states == ["open", "half_open", "closed"]


def test_the_one_that_is_tried_passes_when_it_is_offered_again() -> None:
    rig = opened()
    rig.time.run(10)
    rig.offer("a3 a4")
    assert rig.passed == "a1 a2 a3 a3"


def test_runs_from_before_say_nothing_about_now() -> None:
    rig = Rig()
    rig.offer("a1 a2 a3 a4 a5")
    rig.end("a1 a2", "failed")
    rig.end("a3")
    rig.end("a4", "failed")
    assert rig.states == ["open"]
    rig.time.run(10)
    rig.offer("a6")
    rig.end("a5")
    assert rig.states == ["open", "half_open"]


def test_what_is_let_go_may_open_it_again() -> None:
    time, rows, events = VirtualTime(), Subject[Candidate](), Subject[TodoEvent]()
    states: list[str] = []
    heard: list[str] = []

    def listen(row: Candidate) -> None:
        heard.append(row.id)
        kind = "completed" if row.id == "b" else "failed"
        events.on_next(event(row.id, outcome=Outcome(kind)))

    operator = circuit_breaker(
        events, failures=1, cool_down=10, on_change=lambda key, state: states.append(state)
    )
    rows.pipe(operator).subscribe(listen, scheduler=time.scheduler)
    for id in "abcd":
        rows.on_next(candidate(id))
    time.run(15)
    assert (heard, states) == (["a", "b", "c"], ["open", "half_open", "closed", "open"])


def test_events_of_rows_that_did_not_pass_here_are_ignored() -> None:
    rig = Rig()
    rig.end("a1 a2 a3", "failed")
    rig.offer("a4")
    assert (rig.passed, rig.states) == ("a4", [])


def test_a_verdict_and_a_key_of_ones_own() -> None:
    rig = Rig(
        key=lambda row: None if row.id[0] == "x" else row.agent_type,
        verdict=lambda said: False if said.message == "429" else None,
        failures=1,
    )
    rig.offer("a1 x1")
    rig.events.on_next(event("a1", message="429"))
    rig.offer("b1 x2")
    assert (rig.passed, rig.changes) == ("a1 x1 x2", [("digest", "open")])


def test_the_agent_type_is_the_key_unless_said_otherwise() -> None:
    rig = Rig(key=None, failures=1)
    rig.offer("a1")
    rig.end("a1", "failed")
    assert rig.changes == [("digest", "open")]


def test_the_end_waits_for_those_that_wait() -> None:
    rig = opened()
    rig.rows.on_completed()
    rig.time.run(10)
    assert not rig.result.completed
    rig.end("a3")
    assert (rig.passed, rig.result.completed) == ("a1 a2 a3 a4", True)


@pytest.mark.parametrize("options", [{"key": lambda row: row.id[99]}, {"verdict": lambda said: {}[said]}])
def test_errors_of_the_users_functions_are_the_streams(options: Any) -> None:
    rig = Rig(**options)
    rig.offer("a1")
    rig.events.on_next(event("a1"))
    assert isinstance(rig.result.error, (IndexError, TypeError))


def test_an_error_of_the_events_is_the_streams() -> None:
    rig = Rig()
    rig.events.on_error(RuntimeError("silence"))
    assert str(rig.result.error) == "silence"


def test_disposal_stops_the_timers_and_lets_go_of_both_sides() -> None:
    rig = opened()
    rig.result.dispose()
    rig.time.run(100)
    assert (rig.passed, rig.states) == ("a1 a2", ["open"])
    assert not any(side.observers for side in (rig.rows, rig.events))


def test_keys_that_failed_once_and_never_came_again_are_forgotten() -> None:
    rig = Rig(key=lambda row: row.id, capacity=10)
    for number in range(1_000):
        rig.offer(f"a{number}")
        rig.end(f"a{number}", "failed")
    assert len(rig.result.values) == 1_000
    assert rig.states == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"failures": 0}, "failures must be at least 1, not 0"),
        ({"cool_down": 0}, "cool_down must be above 0 seconds, not 0"),
        ({"capacity": 0}, "capacity must be at least 1, not 0"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        circuit_breaker(reactivex.never(), **options)
