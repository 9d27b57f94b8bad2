"""`fair_by`: turns, without idle slots."""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject

from reactive_worker.models import Candidate, Demand
from reactive_worker.streams import Backpressure, Ranking, aging, fair_by, prioritise
from reactive_worker.testing.marbles import VirtualTime, candidate


def row(id: str, **columns: Any) -> Candidate:
    return candidate(id, owner_id=id[0], **columns)


def by_owner(of: Candidate) -> Hashable:
    return of.owner_id


def ranking(*ids: str, capacity: int = 1000, **options: Any) -> Ranking:
    made = fair_by(by_owner, **options)(capacity)
    for id in ids:
        made.offer(row(id))
    return made


def window(of: Ranking, size: int = 100, **per_type: int) -> str:
    return " ".join(chosen.id for chosen in of.window(Demand(1, per_type), size))


def serve(of: Ranking, turns: int) -> str:
    """Take the best, one at a time, as a worker with one slot does."""
    served: list[str] = []
    for _ in range(turns):
        best = of.window(Demand(1), 1)
        if not best:
            break
        of.settle(best[0].id)
        served.append(best[0].id)
    return " ".join(served)


def test_groups_take_turns_and_whoever_is_left_gets_all() -> None:
    made = ranking("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert window(made) == "a1 b1 c1 a2 b2 a3 a4"
    assert serve(made, 9) == "a1 b1 c1 a2 b2 a3 a4"


def test_a_window_takes_no_turn() -> None:
    made = ranking("a1", "a2", "b1")
    assert window(made) == window(made) == "a1 b1 a2"


def test_only_what_was_settled_counts() -> None:
    made = ranking("a1", "a2", "b1", "b2")
    made.settle("a1")
    assert window(made) == "b1 a2 b2"
    assert not made.settle("nobody")
    assert window(made) == "b1 a2 b2"


def test_within_a_group_priority_counts_and_does_not_reach_across() -> None:
    made = ranking()
    for id, priority in (("a1", 0), ("a2", 9), ("a3", 5), ("b1", 1)):
        made.offer(row(id, priority=priority))
    assert window(made) == "a2 b1 a3 a1"


def test_the_key_within_a_group_can_be_another() -> None:
    made = ranking(key=lambda of: of.id[::-1])
    for id in ("a9", "a1", "b5"):
        made.offer(row(id))
    assert window(made) == "a1 b5 a9"
    assert fair_by(by_owner, key=aging(60))(5).offer(row("a1")) == ()


def test_weights_are_shares() -> None:
    made = ranking(
        *(f"{name}{number}" for name in "ab" for number in range(9)),
        weight=lambda of: 2.0 if of == "a" else 1.0,
    )
    served = serve(made, 9).split()
    assert sum(id[0] == "a" for id in served) == 6


def test_absence_is_no_credit() -> None:
    made = ranking(*(f"a{number}" for number in range(9)))
    assert serve(made, 5) == "a0 a1 a2 a3 a4"
    for number in range(5):
        made.offer(row(f"b{number}"))
    assert serve(made, 4) in ("a5 b0 a6 b1", "b0 a5 b1 a6")


def test_newcomers_without_end_keep_nobody_waiting() -> None:
    made = ranking(*(f"a{number}" for number in range(9)))
    served: list[str] = []
    for number in range(20):
        made.offer(candidate(f"{number:02}", owner_id=f"new {number}", priority=9))
        served.extend(serve(made, 1).split())
    assert sum(id[0] == "a" for id in served) >= 5


def test_one_at_a_time_is_no_way_around_the_turns() -> None:
    made = ranking(*(f"b{number}" for number in range(9)))
    served: list[str] = []
    for number in range(10):
        made.offer(row(f"a{number}"))
        served.append(serve(made, 1)[0])
    assert served.count("a") == served.count("b")


def test_types_without_room_are_skipped_at_no_cost_to_their_group() -> None:
    made = ranking()
    for id, kind in (("a1", "x"), ("a2", "y"), ("b1", "y"), ("b2", "y")):
        made.offer(row(id, agent_type=kind))
    assert window(made, x=0) == "a2 b1 b2"
    assert window(made, y=1) == "a1 b1" or window(made, y=1) == "a1 a2"


def test_windows_are_no_longer_than_asked() -> None:
    assert window(ranking("a1", "a2", "b1", "b2"), size=3) == "a1 b1 a2"


def test_beyond_capacity_the_group_with_most_loses_its_worst() -> None:
    made = ranking(capacity=4)
    dropped = [of.id for id in ("a1", "a2", "a3", "b1", "c1", "a0", "d1") for of in made.offer(row(id))]
    assert dropped == ["a3", "a2", "a1"]
    assert window(made) == "a0 b1 c1 d1"


def test_a_row_that_changes_hands_is_there_once() -> None:
    made = ranking("a1", "b1")
    made.offer(candidate("a1", owner_id="b", attempt=1))
    assert len(made) == 2
    assert "a1" in made
    assert window(made) == "a1 b1"


def test_there_is_no_horizon() -> None:
    made = ranking("a1")
    assert made.limit(row("z9", priority=99)) == ()
    assert made.offer(row("b1")) == ()


def test_a_weight_that_is_none_is_about_the_row() -> None:
    with pytest.raises(ValueError, match="the weight of 'a' must be above 0, not 0"):
        ranking("a1", weight=lambda of: 0)


def test_groups_that_are_gone_are_forgotten() -> None:
    made = fair_by(lambda of: of.id)(10)
    for number in range(5_000):
        made.offer(candidate(f"{number:05}"))
        serve(made, 1)
    assert made._turn == {}  # type: ignore[attr-defined]


def test_ten_thousand_of_one_do_not_keep_nine_others_waiting() -> None:
    time = VirtualTime()
    rows: Subject[Candidate] = Subject()
    backpressure = Backpressure()
    demand, settled = backpressure.demand, backpressure.settled
    served: list[str] = []
    windows = rows.pipe(prioritise(backpressure, order=fair_by(by_owner), capacity=1000))

    def take(best: list[Candidate]) -> None:
        served.extend(of.id for of in best[:4])
        settled.on_next([of.id for of in best[:4]])
        demand.on_next(Demand(4))

    windows.subscribe(take, scheduler=time.scheduler)
    for number in range(10_000):
        rows.on_next(row(f"a{number:05}"))
    for name in "bcdefghij":
        for number in range(10):
            rows.on_next(row(f"{name}{number}"))
    demand.on_next(Demand(4))
    time.run()
    assert len(served) == 1000
    assert max(place for place, id in enumerate(served) if id[0] != "a") <= 100 + 4


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=60), st.integers(0, 2**32))
def test_while_both_wait_no_group_gets_far_ahead(offers: list[tuple[str, int]], seed: int) -> None:
    made = ranking(*(f"{name}{number:02}" for name in "xy" for number in range(40)))
    dice = random.Random(seed)
    for number, (name, priority) in enumerate(offers):
        made.offer(row(f"{name}{number}", priority=priority))
        if dice.random() < 0.5:
            serve(made, 1)
    served = serve(made, 40).split()
    had = {name: sum(id[0] == name for id in served) for name in "xy"}
    assert abs(had["x"] - had["y"]) <= 1
