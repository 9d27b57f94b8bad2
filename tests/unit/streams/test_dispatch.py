"""`dispatch`: slots, claims, error boundaries, pace."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

import pytest
import reactivex
from hypothesis import given
from hypothesis import strategies as st
from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import BehaviorSubject, Subject

from reactive_worker.models import Candidate, ClaimResult, Demand, Todo, TodoEvent
from reactive_worker.streams import Backoff, Backpressure, dispatch, prioritise
from reactive_worker.testing.marbles import Recording, VirtualTime, candidate, candidates, event, todo

STEADY = Backoff(1.0, 4.0, jitter=0.0)


def at_once(*values: Any) -> Observable[Any]:
    """Answers inside `subscribe`, as nothing real does: the hardest case for re-entrancy."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        for value in values:
            observer.on_next(value)
        observer.on_completed()

    return Observable(subscribe)


class Rig:
    """A `dispatch` fed by a subject; claims and runs are whatever the test says."""

    def __init__(
        self,
        claim: Callable[[list[Candidate], int], Observable[ClaimResult]] | None = None,
        run: Callable[[Todo], Observable[TodoEvent]] | None = None,
        *,
        concurrency: int = 2,
        source: Callable[[Rig], Observable[list[Candidate]]] | None = None,
        paused: Observable[bool] | None = None,
        **options: Any,
    ) -> None:
        self.time = VirtualTime()
        self.windows: Subject[list[Candidate]] = Subject()
        self.backpressure = Backpressure()
        self.demand = self.backpressure.demand
        if paused is not None:
            paused.subscribe(self.backpressure.paused)
        self.asked: list[int] = []
        self.rooms: list[dict[str, int]] = []
        self.demand.subscribe(self._asked)
        self.settled_ids: list[list[str]] = []
        self.backpressure.settled.subscribe(lambda ids: self.settled_ids.append(list(ids)))
        self.finished_ids: list[str] = []
        self.backpressure.finished.subscribe(lambda ids: self.finished_ids.extend(ids))
        self.claims: list[tuple[str, int]] = []
        self.runs: list[str] = []
        self.errors: list[tuple[str | None, str]] = []
        self._claim = claim or (lambda rows, want: at_once(self.take(rows, want)))
        self._run = run or (lambda row: self.time.cold("--|"))
        operator = dispatch(
            self._note_claim,
            self._note_run,
            self.backpressure,
            concurrency=concurrency,
            on_error=lambda row, error: self.errors.append((row and row.id, str(error))),
            **({"claim_backoff": STEADY, "error_backoff": STEADY, "linger": 0.0} | options),
        )
        fed = self.windows if source is None else source(self)
        self.result: Recording[TodoEvent] = self.time.observe(fed.pipe(operator))

    @staticmethod
    def take(rows: list[Candidate], want: int) -> ClaimResult:
        return ClaimResult(tuple(todo(row) for row in rows[:want]), ())

    def _asked(self, demand: Demand) -> None:
        self.asked.append(demand.total)
        self.rooms.append(dict(demand.per_type))

    def _note_claim(self, rows: list[Candidate], want: int) -> Observable[ClaimResult]:
        self.claims.append(("".join(row.id for row in rows), want))
        return self._claim(rows, want)

    def _note_run(self, row: Todo) -> Observable[TodoEvent]:
        self.runs.append(row.id)
        return self._run(row)

    def offer(self, names: str, **columns: Any) -> None:
        self.windows.on_next(list(candidates(names, **columns).values()))


def test_demand_is_asked_at_once_for_every_slot() -> None:
    assert Rig(concurrency=3).asked == [3]


def test_claimed_rows_run_at_once_and_their_events_come_out() -> None:
    said = {name: event(name) for name in "ab"}
    rig = Rig(run=lambda row: rig.time.cold("-x-|", {"x": said[row.id]}))
    rig.offer("abc")
    rig.time.run(2)
    assert rig.claims == [("abc", 2)]
    assert rig.settled_ids == [["a", "b"]]
    assert [(m.time, m.value) for m in rig.result.messages] == [(1, said["a"]), (1, said["b"])]


def test_a_claim_never_wants_more_than_the_free_slots() -> None:
    rig = Rig(run=lambda row: rig.time.cold("-|" if row.id == "a" else "---|"))
    rig.offer("abc")
    rig.time.run(1)
    rig.offer("cd")
    rig.time.run(1.5)
    assert rig.claims == [("abc", 2), ("cd", 1)]
    assert rig.asked == [2, 1]


def test_nobody_is_asked_while_every_slot_is_taken() -> None:
    rig = Rig(run=lambda row: reactivex.never())
    rig.offer("ab")
    rig.time.run()
    assert rig.asked == [2]


def test_one_claim_is_in_flight_at_a_time() -> None:
    answer: Subject[ClaimResult] = Subject()
    rig = Rig(claim=lambda rows, want: answer, run=lambda row: reactivex.never())
    rig.offer("a")
    rig.offer("b")
    assert (rig.claims, rig.asked) == ([("a", 1)], [2])
    answer.on_next(rig.take([candidate("a")], 1))
    assert rig.asked == [2, 1]


def test_rows_that_are_gone_are_settled_and_the_next_are_asked_for_at_once() -> None:
    rig = Rig(claim=lambda rows, want: at_once(ClaimResult((), ("a", "b"))))
    rig.offer("ab")
    assert (rig.settled_ids, rig.asked, rig.finished_ids) == ([["a", "b"]], [2, 2], ["a", "b"])


def test_a_row_locked_by_others_is_looked_at_ever_more_rarely() -> None:
    times: list[float] = []
    answers = [ClaimResult((), ())] * 5

    def claim(rows: list[Candidate], want: int) -> Observable[ClaimResult]:
        times.append(rig.time.seconds)
        return at_once(answers.pop() if answers else rig.take(rows, want))

    rig = Rig(claim=claim)
    # Whatever makes the windows here knows nothing of what is busy, and offers the row at each demand.
    rig.demand.subscribe(lambda _: rig.offer("a"))
    rig.offer("a")
    rig.time.run(20)
    # The row ran from 15 to 17, and then it went on at full pace.
    assert times == [0, 1, 3, 7, 11, 15, 15, 17, 17, 19, 19]


def test_jitter_keeps_workers_apart() -> None:
    pauses: list[float] = []
    for number in (0.0, 0.5, 0.999):
        rig = Rig(
            claim=lambda rows, want: at_once(ClaimResult((), ())),
            claim_backoff=Backoff(1.0, 4.0, jitter=0.5, random=lambda number=number: number),
        )
        rig.backpressure.busy.subscribe(lambda busy: pauses.append(busy["a"]))
        rig.offer("a")
    assert pauses == pytest.approx([0.5, 1.0, 1.499], abs=0.001)


def locked(rig: Rig, ids: Collection[str]) -> Callable[[list[Candidate], int], Observable[ClaimResult]]:
    """A claim as the database makes it: in order, past what others have locked."""
    return lambda rows, want: at_once(rig.take([row for row in rows if row.id not in ids], want))


def test_one_locked_row_costs_the_others_nothing() -> None:
    rows: Subject[Candidate] = Subject()
    rig = Rig(
        concurrency=1,
        run=lambda row: rig.time.cold("-|"),
        claim=lambda offered, want: locked(rig, {"a"})(offered, want),
        source=lambda rig: rows.pipe(prioritise(rig.backpressure)),
    )
    for number, name in enumerate("abcdef"):
        rows.on_next(candidate(name, priority=-number))
    rig.time.run(5)
    assert "".join(rig.runs) == "bcdef"
    # It was shown to one claim at 0, and rests; the second time twice as long.
    assert [rows for rows, _ in rig.claims] == ["abcdef", "acdef", "def", "aef", "f"]


def test_however_many_locked_rows_are_best_the_next_one_runs() -> None:
    rows: Subject[Candidate] = Subject()
    best = {f"{number:03}" for number in range(200)}
    rig = Rig(
        concurrency=1,
        run=lambda row: rig.time.cold("-|"),
        claim=lambda offered, want: locked(rig, best)(offered, want),
        source=lambda rig: rows.pipe(prioritise(rig.backpressure, window=200)),
    )
    for id in sorted(best):
        rows.on_next(candidate(id, priority=9))
    rows.on_next(candidate("201"))
    rig.time.run(0.5)
    assert rig.runs == ["201"]
    # Unlocked, they run when their rest is over, best first.
    best.clear()
    rig.time.run(3)
    assert rig.runs[1:3] == ["000", "001"]


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(lambda rows, want: reactivex.throw(RuntimeError("no answer")), id="errors"),
        pytest.param(lambda rows, want: {}[want], id="raises"),
    ],
)
def test_a_failing_claim_is_told_and_tried_again_ever_more_slowly(failing: Any) -> None:
    rig = Rig(claim=failing)
    times: list[float] = []
    rig.demand.subscribe(lambda _: (times.append(rig.time.seconds), rig.offer("a")))
    rig.offer("a")
    rig.time.run(12)
    assert times == [1, 3, 7, 11]
    assert len(rig.errors) == 5
    assert rig.errors[0][0] is None
    assert rig.result.error is None


def test_a_claim_that_ends_without_an_answer_counts_as_one_that_found_nothing() -> None:
    rig = Rig(claim=lambda rows, want: reactivex.empty())
    rig.offer("a")
    rig.time.run(1)
    assert (rig.asked, rig.errors) == ([2, 2], [])


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(lambda row: reactivex.throw(RuntimeError("boom")), id="errors"),
        pytest.param(lambda row: {}["boom"], id="raises"),
    ],
)
def test_a_failing_run_is_its_own_affair(failing: Any) -> None:
    rig = Rig(run=lambda row: failing(row) if row.id == "a" else rig.time.cold("-x|", {"x": event("b")}))
    rig.offer("ab")
    rig.time.run(5)
    assert [id for id, _ in rig.errors] == ["a"]
    assert "boom" in rig.errors[0][1]
    assert [said.todolist_id for said in rig.result.values] == ["b"]
    assert rig.asked == [2, 1, 2]
    assert rig.finished_ids == ["a", "b"]


def test_limits_of_a_type_are_asked_for_and_kept() -> None:
    rig = Rig(
        concurrency=4,
        per_type={"x": 1, "y": 0},
        run=lambda row: rig.time.cold("--|"),
        source=lambda rig: rig.windows,
    )
    assert rig.rooms == [{"x": 1, "y": 0}]
    rig.windows.on_next(
        [candidate(name, agent_type=kind) for name, kind in zip("abcde", "xxyzz", strict=True)]
    )
    assert rig.claims == [("ade", 3)]
    assert rig.rooms[-1] == {"x": 0, "y": 0}
    rig.time.run(2)
    assert rig.rooms[-1] == {"x": 1, "y": 0}


def test_a_window_of_types_without_room_is_no_claim() -> None:
    rig = Rig(per_type={"x": 0})
    rig.offer("a", agent_type="x")
    assert rig.claims == []


def test_while_paused_nothing_is_claimed_and_what_runs_goes_on() -> None:
    paused = BehaviorSubject(False)
    rig = Rig(paused=paused, run=lambda row: rig.time.cold("---x|", {"x": event(row.id)}))
    rig.offer("a")
    rig.time.run(1)
    paused.on_next(True)
    assert rig.asked == [2, 1, 0]
    rig.offer("b")
    rig.time.run(10)
    assert (rig.claims, len(rig.result.values)) == ([("a", 1)], 1)
    paused.on_next(False)
    assert rig.asked == [2, 1, 0, 2]
    rig.offer("b")
    assert rig.claims == [("a", 1), ("b", 1)]


def test_a_worker_that_starts_paused_asks_nothing() -> None:
    assert Rig(paused=BehaviorSubject(True)).asked == []


def test_a_claim_in_flight_when_paused_still_runs_what_it_got() -> None:
    paused, answer = BehaviorSubject(False), Subject[ClaimResult]()
    rig = Rig(paused=paused, claim=lambda rows, want: answer)
    rig.offer("a")
    paused.on_next(True)
    answer.on_next(rig.take([candidate("a")], 1))
    assert rig.runs == ["a"]
    assert rig.asked == [2]


def test_the_error_of_paused_is_told() -> None:
    paused: Subject[bool] = Subject()
    rig = Rig(paused=paused)
    paused.on_error(RuntimeError("deaf"))
    assert (rig.errors, rig.result.error) == ([(None, "deaf")], None)


def test_a_busy_worker_lingers_for_more_slots() -> None:
    lengths = {"a": "-|", "b": "-----|", "c": "------------|", "d": "-------------|"}
    rig = Rig(concurrency=8, linger=2.0, run=lambda row: rig.time.cold(lengths.get(row.id, "-" * 40 + "|")))
    times: list[tuple[float, int]] = []
    rig.demand.subscribe(lambda demand: times.append((rig.time.seconds, demand.total)))
    rig.offer("abcdefgh")
    rig.time.run(30)
    # One slot at 1 waits until 3. That demand stands, so each later slot raises it at once.
    assert times == [(3, 1), (5, 2), (12, 3), (13, 4)]


def test_a_quarter_of_the_slots_is_worth_a_claim_at_once() -> None:
    rig = Rig(
        concurrency=8, linger=2.0, run=lambda row: rig.time.cold("-|" if row.id in "ab" else "-" * 40 + "|")
    )
    times: list[tuple[float, int]] = []
    rig.demand.subscribe(lambda demand: times.append((rig.time.seconds, demand.total)))
    rig.offer("abcdefgh")
    rig.time.run(30)
    assert times == [(1, 2)]


def test_an_idle_worker_does_not_linger() -> None:
    rig = Rig(concurrency=8, linger=2.0)
    rig.offer("a")
    assert rig.asked == [8, 7]


def test_completion_waits_for_what_runs() -> None:
    rig = Rig(run=lambda row: rig.time.cold("--x-|", {"x": event(row.id)}))
    rig.offer("ab")
    rig.windows.on_completed()
    rig.time.run(10)
    assert [(m.time, m.kind) for m in rig.result.messages] == [(2, "next"), (2, "next"), (4, "completed")]
    assert rig.asked == [2]


def test_completion_waits_for_a_claim_in_flight() -> None:
    answer: Subject[ClaimResult] = Subject()
    rig = Rig(claim=lambda rows, want: answer)
    rig.offer("a")
    rig.windows.on_completed()
    assert not rig.result.completed
    answer.on_next(rig.take([candidate("a")], 1))
    rig.time.run(1)
    assert not rig.result.completed
    rig.time.run(3)
    assert rig.result.completed


def test_the_source_error_comes_after_what_runs() -> None:
    error = RuntimeError("the source broke")
    rig = Rig(run=lambda row: rig.time.cold("--x|", {"x": event(row.id)}))
    rig.offer("a")
    rig.windows.on_error(error)
    rig.time.run(10)
    assert [(m.time, m.kind) for m in rig.result.messages] == [(2, "next"), (3, "error")]
    assert rig.result.error is error


def test_disposal_disposes_runs_and_timers() -> None:
    sources: list[Any] = []

    def run(row: Todo) -> Observable[TodoEvent]:
        sources.append(rig.time.cold("----x|", {"x": event(row.id)}))
        return sources[-1]

    rig = Rig(run=run)
    rig.offer("ab")
    rig.time.run(1)
    rig.result.dispose()
    rig.time.run(20)
    assert [source.subscriptions for source in sources] == [[(0, 1)], [(0, 1)]]
    assert (rig.result.messages, rig.asked) == ([], [2])


def test_disposal_disposes_the_claim_in_flight() -> None:
    rig = Rig(claim=lambda rows, want: answer)
    answer = rig.time.cold("----x|")
    rig.offer("a")
    rig.time.run(1)
    rig.result.dispose()
    assert answer.subscriptions == [(0, 1)]


def test_disposal_from_within_a_run_starts_no_other() -> None:
    rig = Rig(concurrency=3, run=lambda row: (rig.result.dispose(), reactivex.empty())[1])
    rig.offer("abc")
    rig.time.run(5)
    assert rig.runs == ["a"]


def test_runs_that_end_at_once_do_not_grow_the_stack() -> None:
    left = [candidate(f"{number:05}") for number in range(10_000)]

    def source(rig: Rig) -> Observable[list[Candidate]]:
        # Answers demand inside `on_next`, so that everything that can nest does.
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            def answer(demand: Demand) -> None:
                window, left[:] = left[:1], left[1:]
                if window:
                    observer.on_next(window)
                else:
                    observer.on_completed()

            return rig.demand.subscribe(answer)

        return Observable(subscribe)

    rig = Rig(run=lambda row: at_once(event(row.id)), source=source)
    assert (len(rig.runs), rig.result.completed) == (10_000, True)


def test_with_prioritise_a_backlog_runs_best_first_and_each_row_once() -> None:
    rows: Subject[Candidate] = Subject()
    rig = Rig(
        concurrency=1,
        run=lambda row: rig.time.cold("-|"),
        source=lambda rig: rows.pipe(prioritise(rig.backpressure)),
    )
    for name, priority in zip("abcdefgh", (3, 1, 2, 1, 3, 2, 9, 0), strict=True):
        rows.on_next(candidate(name, priority=priority))
    rows.on_completed()
    rig.time.run(20)
    assert "".join(rig.runs) == "gaecfbdh"
    assert rig.result.completed


@given(seed=st.integers(0, 2**32), concurrency=st.integers(1, 4), count=st.integers(0, 12))
def test_slots_are_never_overdrawn_and_every_row_runs_once(seed: int, concurrency: int, count: int) -> None:
    dice = random.Random(seed)
    rows: Subject[Candidate] = Subject()
    running = 0
    lost: set[str] = set()

    def claim(offered: list[Candidate], want: int) -> Observable[ClaimResult]:
        assert 0 < want <= concurrency - running
        ours = dice.randint(0, want)
        gone = (offered[-1].id,) if not ours and dice.random() < 0.5 else ()
        lost.update(gone)
        result = ClaimResult(tuple(todo(row) for row in offered[:ours]), gone)
        return rig.time.cold("-" * dice.randint(0, 3) + "(r,|)", {"r": result})

    def run(row: Todo) -> Observable[TodoEvent]:
        nonlocal running
        running += 1
        assert running <= concurrency

        def ended() -> None:
            nonlocal running
            running -= 1

        life = rig.time.cold("-" * dice.randint(0, 5) + dice.choice("|#"))
        return life.pipe(ops.do_action(on_completed=ended, on_error=lambda _: ended()))

    def source(rig: Rig) -> Observable[list[Candidate]]:
        return rows.pipe(prioritise(rig.backpressure))

    rig = Rig(claim, run, concurrency=concurrency, source=source)
    names = [f"{number:02}" for number in range(count)]
    for name in names:
        rows.on_next(candidate(name, priority=dice.randint(0, 2)))
    rows.on_completed()
    rig.time.run()
    assert sorted([*rig.runs, *lost]) == names
    assert rig.result.completed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"linger": -1.0}, "linger must be at least 0 seconds, not -1.0"),
        ({"per_type": {"x": -1}}, r"per_type\['x'\] must be at least 0, not -1"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rig(**options)
