"""Waiting times: the one `Backoff` of the whole package."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reactive_worker
from reactive_worker import streams
from reactive_worker.backoff import Backoff, spread


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
        ({"jitter": 1}, r"jitter must be in \[0, 1\) or 'full', not 1"),
        ({"first": float("nan")}, "first must be above 0 seconds, not nan"),
        ({"limit": float("nan")}, r"limit must be at least first \(1 s\), not nan"),
        ({"factor": float("nan")}, "factor must be at least 1, not nan"),
    ],
)
def test_numbers_are_checked(numbers: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Backoff(**({"first": 1, "limit": 2} | numbers))


@given(st.integers(-(2**40), 2**40), st.floats(0, 1, exclude_max=True), st.floats(1, 1e9))
def test_full_jitter_is_between_nothing_and_the_wait(failures: int, number: float, factor: float) -> None:
    wait = Backoff(1.0, 300.0, factor, jitter="full", random=lambda: number).delay(failures)
    assert math.isfinite(wait)
    assert 0 <= wait <= 300


def test_full_jitter_uses_the_whole_range() -> None:
    waits = [Backoff(10, 10, 1, jitter="full").delay(1) for _ in range(1000)]
    assert min(waits) < 1
    assert max(waits) > 9


def test_there_is_one_backoff_in_the_package() -> None:
    assert streams.Backoff is Backoff
    root = Path(reactive_worker.__file__).parent
    classes = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and "backoff" in node.name.lower()
    }
    assert classes == {"backoff.py"}
    # A pause that doubles is a backoff that nobody can test; the embedded Supabase knows none of our rooms.
    doubled = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.name != "backoff.py" and ("* 2 **" in path.read_text() or "pause * 2" in path.read_text())
    }
    assert doubled == set()
