"""`prioritise`: the order, the demand, the bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject

from reactive_worker.models import Candidate, Demand, SweepResult
from reactive_worker.streams import Backpressure, default_priority, prioritise
from reactive_worker.testing.marbles import EPOCH, Recording, VirtualTime, candidate, candidates


class Rig:
    """A `prioritise` with subjects on every side."""

    def __init__(self, **options: Any) -> None:
        self.time = VirtualTime()
        self.rows: Subject[Candidate] = Subject()
        self.backpressure = Backpressure()
        self.demand = self.backpressure.demand
        self.settled = self.backpressure.settled
        self.swept = self.backpressure.swept
        self.dropped: list[str] = []
        self.lows = 0
        self.backpressure.released.subscribe(lambda keys: self.dropped.extend(id for id, _ in keys))  # type: ignore[misc]
        self.backpressure.wanted.subscribe(self._low)
        operator = prioritise(self.backpressure, **options)
        self.result: Recording[list[Candidate]] = self.time.observe(self.rows.pipe(operator))

    def _low(self, _: None) -> None:
        self.lows += 1

    def offer(self, *rows: Candidate) -> None:
        for row in rows:
            self.rows.on_next(row)

    def sweep(self, *rows: Candidate, full: bool) -> None:
        self.swept.on_next(SweepResult(rows, None, 0, EPOCH, full))
        self.offer(*rows)

    def ask(self, total: int, **per_type: int) -> None:
        self.demand.on_next(Demand(total, per_type))
        self.time.advance(0)

    @property
    def windows(self) -> list[str]:
        return ["".join(row.id for row in window) for window in self.result.values]


def test_a_window_is_by_priority_then_age_then_id() -> None:
    rig = Rig()
    rig.offer(
        candidate("d", priority=1),
        candidate("c", priority=1, due=-5),
        candidate("b", priority=9),
        candidate("a", priority=1),
    )
    rig.ask(4)
    assert rig.windows == ["bcad"]


def test_demand_waits_for_a_candidate_and_is_used_up_by_one_window() -> None:
    rig = Rig()
    rig.ask(3)
    assert rig.windows == []
    rig.offer(*candidates("ab").values())
    rig.time.advance(0)
    rig.offer(candidate("c"))
    rig.time.advance(1)
    assert rig.windows == ["ab"]


def test_a_window_holds_more_than_was_demanded() -> None:
    rig = Rig(window=3)
    rig.offer(*candidates("abcd").values())
    rig.ask(1)
    assert rig.windows == ["abc"]


def test_candidates_of_one_turn_are_ranked_before_the_best_is_chosen() -> None:
    rig = Rig(key=lambda row: row.priority)
    rig.ask(1)
    rig.offer(candidate("a", priority=9), candidate("b", priority=1))
    rig.time.advance(0)
    assert rig.windows == ["ba"]


def test_a_new_demand_replaces_the_one_before() -> None:
    rig = Rig()
    rig.ask(5)
    rig.ask(0)
    rig.offer(candidate("a"))
    rig.time.advance(1)
    assert rig.windows == []
    rig.ask(1)
    assert rig.windows == ["a"]


def test_a_demand_taken_back_before_its_turn_brings_no_window() -> None:
    rig = Rig()
    rig.offer(candidate("a"))
    rig.demand.on_next(Demand(1))
    rig.demand.on_next(Demand(0))
    rig.time.advance(1)
    assert rig.windows == []


def test_types_without_room_are_left_out_and_limited_ones_take_no_more_than_their_room() -> None:
    rig = Rig()
    rig.offer(*candidates("abc", agent_type="x").values(), *candidates("de", agent_type="y").values())
    rig.offer(candidate("f", agent_type="z"))
    rig.ask(9, x=1, y=0)
    assert rig.windows == ["af"]


def test_demand_that_nothing_fits_waits_for_something_that_does() -> None:
    rig = Rig()
    rig.offer(candidate("a", agent_type="x"))
    rig.ask(2, x=0)
    assert rig.windows == []
    rig.offer(candidate("b", agent_type="x"))
    rig.time.advance(1)
    assert rig.windows == []
    rig.offer(candidate("c", agent_type="y"))
    rig.time.advance(1)
    assert rig.windows == ["c"]


def test_what_was_offered_stays_until_it_is_settled() -> None:
    rig = Rig()
    rig.offer(*candidates("abc").values())
    rig.ask(1)
    rig.ask(1)
    rig.settled.on_next(["a", "c", "nobody"])
    rig.ask(1)
    assert rig.windows == ["abc", "abc", "b"]


def test_what_is_busy_rests_alone_and_comes_back_as_it_was_last_told() -> None:
    rig = Rig(window=2)
    rig.offer(*candidates("abc").values())
    rig.ask(1)
    rig.backpressure.busy.on_next({"a": 5.0, "b": 2.0, "nobody": 1.0})
    rig.ask(1)
    assert rig.windows == ["ab", "c"]
    # A new attempt is another matter; a changed row is taken as it is when its time has come.
    rig.offer(candidate("a", attempt=1), candidate("b", priority=9))
    rig.ask(1)
    assert rig.windows[2:] == ["ac"]
    rig.time.advance(2)
    rig.ask(1)
    assert rig.windows[3:] == ["ba"]
    rig.backpressure.busy.on_next({"b": 60.0})
    rig.settled.on_next(["b", "c", "a"])
    rig.rows.on_completed()
    rig.time.advance(100)
    assert rig.result.completed


def test_what_rests_is_bounded() -> None:
    rig = Rig(capacity=2, window=2)
    rig.offer(*candidates("ab").values())
    rig.ask(1)
    rig.backpressure.busy.on_next({"a": 60.0, "b": 60.0})
    rig.offer(*candidates("cd").values())
    rig.ask(1)
    rig.backpressure.busy.on_next({"c": 60.0, "d": 60.0})
    assert rig.dropped == ["a", "b"]


def test_the_newest_attempt_of_a_row_wins() -> None:
    rig = Rig()
    rig.offer(candidate("a", attempt=1), candidate("b"))
    rig.offer(candidate("a", attempt=2, priority=-1))
    rig.offer(candidate("a", attempt=1, priority=9))
    rig.ask(1)
    assert [(row.id, row.attempt) for row in rig.result.values[0]] == [("b", 0), ("a", 2)]


def test_a_changed_row_of_the_same_attempt_replaces_what_was_known() -> None:
    rig = Rig()
    rig.offer(candidate("a"), candidate("b", priority=1), candidate("a", priority=5))
    rig.ask(1)
    assert rig.windows == ["ab"]


def test_beyond_capacity_the_worst_is_dropped() -> None:
    rig = Rig(capacity=2)
    rig.offer(candidate("a", priority=1), candidate("b", priority=2))
    rig.offer(candidate("c", priority=0))
    rig.offer(candidate("d", priority=3))
    assert rig.dropped == ["c", "a"]
    rig.ask(1)
    assert rig.windows == ["db"]


def test_a_full_sweep_sets_a_horizon_and_the_next_that_is_not_full_takes_it_away() -> None:
    rig = Rig()
    rig.offer(candidate("z", priority=-9))
    rig.sweep(candidate("a", priority=5), candidate("b", priority=4), full=True)
    assert rig.dropped == ["z"]
    rig.offer(candidate("c", priority=3), candidate("d", priority=6))
    assert rig.dropped == ["z", "c"]
    rig.sweep(candidate("c", priority=3), full=False)
    rig.ask(1)
    assert rig.windows == ["dabc"]


def test_the_horizon_is_the_databases_so_another_key_has_none() -> None:
    rig = Rig(key=lambda row: row.priority)
    rig.sweep(candidate("a", priority=5), candidate("b", priority=4), full=True)
    rig.offer(candidate("c", priority=9))
    rig.ask(1)
    assert (rig.dropped, rig.windows) == ([], ["bac"])


def test_low_is_told_once_after_a_full_sweep_is_used_up() -> None:
    rig = Rig()
    rows = candidates("abcdefgh")
    rig.sweep(*rows.values(), full=True)
    rig.settled.on_next(list("abcdef"))
    assert rig.lows == 0
    rig.settled.on_next(["g"])
    assert rig.lows == 1
    rig.settled.on_next(["h"])
    assert rig.lows == 1
    rig.sweep(*rows.values(), full=True)
    rig.settled.on_next(list("abcdefgh"))
    assert rig.lows == 2


def test_low_goes_by_the_capacity_when_a_sweep_brings_more() -> None:
    rig = Rig(capacity=4)
    rig.sweep(*candidates("abcdefgh").values(), full=True)
    rig.settled.on_next(["a", "b", "c"])
    assert rig.lows == 0
    rig.settled.on_next(["d"])
    assert rig.lows == 1


def test_nothing_is_low_when_the_database_holds_no_more() -> None:
    rig = Rig()
    rig.sweep(*candidates("abcd").values(), full=False)
    rig.settled.on_next(list("abcd"))
    assert rig.lows == 0


def test_a_full_sweep_whose_rows_never_arrive_does_not_ask_for_the_next() -> None:
    rig = Rig()
    rig.swept.on_next(SweepResult(tuple(candidates("abcd").values()), None, 0, EPOCH, True))
    rig.time.advance(60)
    assert rig.lows == 0


def test_after_completion_what_is_left_is_served_first() -> None:
    rig = Rig()
    rig.offer(*candidates("ab").values())
    rig.rows.on_completed()
    rig.ask(1)
    rig.settled.on_next(["a"])
    assert (rig.windows, rig.result.completed) == (["ab"], False)
    rig.settled.on_next(["b"])
    assert rig.result.completed


def test_it_ends_with_demand() -> None:
    rig = Rig()
    rig.offer(candidate("a"))
    rig.demand.on_completed()
    assert rig.result.completed


@pytest.mark.parametrize("side", ["demand", "settled", "swept"])
def test_errors_of_the_other_sides_are_its_own(side: str) -> None:
    rig = Rig()
    error = RuntimeError(side)
    getattr(rig, side).on_error(error)
    assert rig.result.error is error


def test_disposal_lets_go_of_every_side() -> None:
    rig = Rig()
    rig.offer(candidate("a"))
    rig.demand.on_next(Demand(1))
    rig.result.dispose()
    rig.time.advance(10)
    assert rig.windows == []
    assert not any(side.observers for side in (rig.rows, rig.demand, rig.settled, rig.swept))


def test_a_raising_key_is_about_one_row() -> None:
    told: list[str] = []
    rig = Rig(
        key=lambda row: row.priority // (row.priority - 1),
        on_error=lambda row, error: told.append(f"{row.id}: {type(error).__name__}"),
    )
    rig.offer(candidate("a", priority=5), candidate("b", priority=1), candidate("c", priority=7))
    rig.ask(1)
    assert (told, rig.windows) == (["b: ZeroDivisionError"], ["ac"])


def test_keys_that_do_not_compare_are_about_one_row_and_lose_none() -> None:
    told: list[str] = []
    rig = Rig(
        key=lambda row: row.owner_id or row.priority,
        on_error=lambda row, error: told.append(row.id),
        capacity=2,
    )
    rig.offer(candidate("a", priority=1), candidate("b", owner_id="x"), candidate("c", priority=3))
    rig.offer(candidate("a", attempt=1, owner_id="x"))
    rig.ask(1)
    # Released, they may be offered again; what was known of `a` before stays.
    assert (told, rig.windows, rig.dropped) == (["b", "a"], ["ac"], ["b", "a"])


def test_a_raising_key_without_a_handler_ends_the_stream() -> None:
    rig = Rig(key=lambda row: 1 // row.priority)
    rig.offer(candidate("a"))
    assert isinstance(rig.result.error, ZeroDivisionError)


def test_feedback_at_once_does_not_grow_the_stack() -> None:
    rig = Rig(capacity=20_000)
    served: list[str] = []

    def answer(window: list[Candidate]) -> None:
        served.append(window[0].id)
        rig.settled.on_next([window[0].id])
        rig.demand.on_next(Demand(1))

    rig.result.dispose()
    again = rig.rows.pipe(prioritise(rig.backpressure, capacity=20_000))
    again.subscribe(answer, scheduler=rig.time.scheduler)
    numbers = [f"{number:05}" for number in range(10_000)]
    rig.offer(*(candidate(number) for number in random.Random(7).sample(numbers, len(numbers))))
    rig.demand.on_next(Demand(1))
    rig.time.run()
    assert served == numbers


def test_the_work_for_an_offer_does_not_grow_with_how_many_came_before() -> None:
    keys = 0

    def count(row: Candidate) -> Any:
        nonlocal keys
        keys += 1
        return default_priority(row)

    rig = Rig(key=count, capacity=1000)
    dice = random.Random(7)
    rows = [candidate(str(number), priority=dice.randrange(100)) for number in range(100_000)]
    rig.ask(1, digest=0)
    rig.offer(*rows)
    rig.ask(1)
    assert keys == len(rows)
    best = sorted(rows, key=default_priority)
    assert rig.result.values[0] == best[:200]
    assert len(rig.dropped) == 99_000


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(-2, 2), st.integers(0, 3), st.integers(-3, 3)), max_size=60
    ),
    st.integers(1, 8),
)
def test_whatever_is_offered_the_best_stay_in_order(
    offers: list[tuple[int, int, int, int]], capacity: int
) -> None:
    rig = Rig(capacity=capacity)
    newest: dict[str, Candidate] = {}
    for number, priority, attempt, due in offers:
        row = candidate(f"{number:02}", priority=priority, attempt=attempt, due=due)
        rig.offer(row)
        if row.id not in newest or newest[row.id].attempt <= attempt:
            newest[row.id] = row
    rig.ask(1)
    window = rig.result.values[0] if rig.result.values else []
    assert window == sorted(window, key=default_priority)
    assert len({row.id for row in window}) == len(window) <= capacity
    if not rig.dropped:
        assert window == sorted(newest.values(), key=default_priority)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        prioritise(Backpressure(), capacity=0)
    with pytest.raises(ValueError, match="window must be at least 1, not 0"):
        prioritise(Backpressure(), window=0)
