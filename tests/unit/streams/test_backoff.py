"""Waiting times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.streams import Backoff, spread


def test_waits_double_up_to_the_limit_and_stay_there_for_ever() -> None:
    pace = Backoff(0.5, 3.0, jitter=0.0)
    assert [pace.delay(n) for n in (0, 1, 2, 3, 4, 10_000)] == [0.5, 0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.integers(0, 10_000), st.floats(0, 0.99), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_fraction(failures: int, jitter: float, number: float) -> None:
    steady = Backoff(0.5, 3.0, jitter=0.0).delay(failures)
    delay = Backoff(0.5, 3.0, jitter=jitter, random=lambda: number).delay(failures)
    assert steady * (1 - jitter) - 1e-9 <= delay <= steady * (1 + jitter) + 1e-9


def test_spread_goes_both_ways() -> None:
    assert [spread(10, 0.2, lambda n=n: n) for n in (0.0, 0.5, 1.0)] == pytest.approx([8, 10, 12])


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"first": 0}, "first must be above 0 seconds, not 0"),
        ({"limit": 0.5}, r"limit must be at least first \(1 s\), not 0.5"),
        ({"factor": 0.5}, "factor must be at least 1, not 0.5"),
        ({"jitter": 1}, r"jitter must be in \[0, 1\), not 1"),
    ],
)
def test_numbers_are_checked(numbers: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Backoff(**({"first": 1, "limit": 2} | numbers))
