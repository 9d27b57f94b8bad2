"""`Shelves` against the simplest thing that does the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.models import Candidate
from reactive_worker.streams import default_priority
from reactive_worker.streams._shelves import Shelves
from reactive_worker.testing.marbles import candidate

_puts = st.tuples(
    st.just("put"), st.integers(0, 15), st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 2)
)
_takes = st.tuples(st.just("take"), st.just(0), st.sampled_from("abc"), st.just(0), st.just(0))
_discards = st.tuples(st.just("discard"), st.integers(0, 15), st.just(""), st.just(0), st.just(0))


@given(st.lists(st.one_of(_puts, _puts, _takes, _discards), max_size=80), st.integers(1, 10))
def test_they_hold_what_a_plain_dictionary_would(
    steps: list[tuple[str, int, str, int, int]], capacity: int
) -> None:
    shelves = Shelves(capacity)
    model: dict[str, tuple[str, Candidate]] = {}

    def ranked(group: str) -> list[Candidate]:
        return sorted((row for where, row in model.values() if where == group), key=default_priority)

    for what, number, group, priority, attempt in steps:
        id = f"{number:02}"
        if what == "discard":
            assert shelves.discard(id)[0] == (model.pop(id, None) is not None)
        elif what == "take":
            best = next(iter(ranked(group)), None)
            assert shelves.take(group) == best
            if best is not None:
                del model[best.id]
        else:
            row = candidate(id, priority=priority, attempt=attempt)
            dropped = shelves.put(group, row)
            if id not in model or model[id][1].attempt <= attempt:
                model[id] = (group, row)
            if len(model) > capacity:
                longest = max(len(ranked(each)) for each in "abc")
                [gone] = dropped
                where = model[gone.id][0]
                assert len(ranked(where)) == longest
                assert ranked(where)[-1] == gone
                del model[gone.id]
            else:
                assert dropped == ()
        assert len(shelves) == len(model)
        for each in "abc":
            assert [entry[2] for entry in shelves.shelf(each)] == ranked(each)
        assert set(shelves.groups()) == {where for where, _ in model.values()}
        assert all(each in shelves for each in model)
