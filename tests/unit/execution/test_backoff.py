"""Exponential backoff with full jitter."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.execution import Backoff


def test_the_ceiling_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(base=1, factor=2, maximum=60)
    assert [backoff.ceiling(n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(-(2**40), 2**40), st.floats(0, 1, exclude_max=True))
def test_every_wait_is_between_nothing_and_the_ceiling(failures: int, drawn: float) -> None:
    wait = Backoff(draw=lambda: drawn)(failures)
    assert 0 <= wait <= 300
    assert math.isfinite(wait)


def test_the_whole_range_is_used() -> None:
    waits = [Backoff(base=10, factor=1, maximum=10)(0) for _ in range(1000)]
    assert min(waits) < 1
    assert max(waits) > 9


@pytest.mark.parametrize(
    "options",
    [{"base": -1}, {"base": float("nan")}, {"factor": 0.5}, {"maximum": 0.1}, {"maximum": float("nan")}],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Backoff(**options)
