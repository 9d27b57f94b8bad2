"""How long a busy server asks to be left alone, and how long that may go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from reactive_worker.errors import RetryLater

#: Seconds to wait when a server says "too many requests" and not for how long.
RATE_LIMIT_DELAY = 30.0
#: Longest wait a server may ask for at once, in seconds.
MOST_DELAY = 3600.0
#: Seconds for which such waits cost nothing, from the first in a row: a day. Then each counts as a failure.
MOST_WAITING = 86_400.0


def busy(who: str, text: str, headers: Mapping[str, str]) -> RetryLater:
    """What 429 means for the task: later, as long as the server says; if it says nothing, one failure.

    Parameters
    ----------
    who:
        For the message: ``"the model"``.
    text:
        What it said.
    headers:
        Of its answer.
    """
    delay = retry_after(headers)
    if delay is None:
        return RetryLater(RATE_LIMIT_DELAY, f"{who} is busy: {text}")
    return RetryLater(delay, f"{who} is busy for {delay:g} s: {text}", counts=False, within=MOST_WAITING)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds an answer asks to wait, at most `MOST_DELAY`; None when it says nothing that can be read.

    Example
    -------
    >>> retry_after({"retry-after": "5"}), retry_after({"retry-after-ms": "1500"}), retry_after({})
    (5.0, 1.5, None)
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MOST_DELAY)
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    # By the server's own clock, where it tells it.
    now = _moment(headers.get("date")) or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), MOST_DELAY)


def _moment(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
