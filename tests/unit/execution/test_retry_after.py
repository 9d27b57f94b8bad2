"""How long a busy server asks to be left alone."""

from __future__ import annotations

import pytest

from reactive_worker.executors._retry_after import MOST_WAITING, RATE_LIMIT_DELAY, busy, retry_after

NOW = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "1e9"}, 3600.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": NOW}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT", "date": "today"}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_every_form_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_what_is_told_costs_nothing_for_a_day_and_what_is_not_is_a_failure() -> None:
    told = busy("the model", "no", {"retry-after": "7"})
    assert (told.delay, told.counts, told.within) == (7.0, False, MOST_WAITING)
    assert (busy("the model", "no", {}).delay, busy("the model", "no", {}).counts) == (RATE_LIMIT_DELAY, True)
