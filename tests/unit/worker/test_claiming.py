"""A hint may overtake the transaction that makes its row visible: then the row is to come, and not gone."""

from __future__ import annotations

import doctest
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reactive_worker.models import Candidate, ClaimResult
from reactive_worker.worker import claiming

AT = datetime(2026, 11, 3, tzinfo=UTC)
TOLD = Candidate("a", "test", 0, 2, AT, AT, source="realtime")


def test_the_example_is_true() -> None:
    assert doctest.testmod(claiming).failed == 0


@pytest.mark.parametrize(
    ("candidate", "attempts", "gone"),
    [
        (TOLD, {"a": None}, ()),  # no row yet
        (TOLD, {"a": 2}, ()),  # released, answered or retried, and still seen as it was
        (TOLD, {"a": 3}, ("a",)),  # claimed by somebody else
        (TOLD, {}, ("a",)),  # a database whose claim does not say
        (replace(TOLD, source="sweep"), {"a": None}, ("a",)),  # a sweep has seen it
    ],
)
def test_only_what_was_told_and_is_not_further_on_may_still_come(
    candidate: Candidate, attempts: dict[str, int | None], gone: tuple[str, ...]
) -> None:
    result = ClaimResult((), ("a",), attempts)
    assert claiming.Visibility().judge([candidate], result).gone == gone


def test_a_row_that_never_comes_is_gone_after_a_while() -> None:
    now = 0.0
    judge = claiming.Visibility(lambda: now).judge
    result = ClaimResult((), ("a", "b"), {"a": None, "b": 7})
    assert judge([TOLD], result).gone == ("b",)
    now = claiming.PATIENCE - 0.1
    assert judge([TOLD], result).gone == ("b",)
    now = claiming.PATIENCE
    assert judge([TOLD], result).gone == ("a", "b")
    # Told of anew, after it was retried: the patience begins anew.
    again = replace(TOLD, attempt=3)
    assert judge([again], replace(result, attempts={"a": 3, "b": 7})).gone == ("b",)
