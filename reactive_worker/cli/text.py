"""Values as a person reads them. Whatever a row holds, there is something to read: nothing here raises."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, cast

from reactive_worker.access.safe_text import safe_text

#: Seconds beyond which nobody counts: a row may say -infinity.
_AGES = 100 * 365.25 * 86_400


def short(value: object, length: int) -> str:
    """One line of at most `length` columns of a terminal.

    >>> short("two\\nlines", 6)
    'two l…'
    """
    from rich.text import Text

    line = Text(" ".join(safe_text(plain(value)).split()), overflow="ellipsis")
    line.truncate(max(1, length))
    return line.plain


def plain(value: object) -> str:
    """A text or number as it is, of anything else its kind: an object may be nested without end.

    >>> plain("a"), plain(3), plain([1]), plain(None)
    ('a', '3', '[...]', '-')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return "[...]"
    if isinstance(value, dict):
        return "{...}"
    try:
        return str(value)
    except ValueError:
        return "(a number of more than 4,300 digits)"


def number(value: object) -> float:
    """A count or a share; 0 where it is none.

    >>> number(3), number("4"), number([]), number(float("nan"))
    (3, 0, 0, 0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    try:
        return value if math.isfinite(value) else 0
    except OverflowError:
        return 0


def object_of(value: object) -> dict[str, Any]:
    """The fields of an object that came as JSON; none where it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """The items of a list that came as JSON; none where it is something else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text_of(value: object, name: str) -> str:
    """A field of an object as text; empty where there is none, or no object.

    >>> text_of({"push": "deaf"}, "push"), text_of(["push"], "push"), text_of({"push": []}, "push")
    ('deaf', '', '[...]')
    """
    found = object_of(value).get(name)
    return "" if found is None or found == "" else plain(found)


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, for example ``42 s``; ``-`` for never."""
    return "-" if moment is None else duration(((now or datetime.now(UTC)) - moment).total_seconds())


def age_of(value: object, now: datetime | None = None) -> str:
    """How long ago a timestamp was that came as JSON; ``-`` where it is none."""
    from reactive_worker.errors import InvalidTaskError
    from reactive_worker.models import parse_time

    try:
        return age(parse_time(value, "time"), now)
    except InvalidTaskError:
        return "-"


def clock(moment: datetime | None, *, seconds_only: bool = False) -> str:
    """The time of day here; empty for never, ``-`` for what no clock shows."""
    if moment is None:
        return ""
    try:
        shown = moment.astimezone().strftime("%H:%M:%S.%f")
    except (OverflowError, ValueError):
        return "-"
    return shown[:8] if seconds_only else shown[:12]


def duration(seconds: object) -> str:
    """Seconds as a person says them; ``-`` where there are none."""
    # JSON has no such number, so that PostgreSQL writes it as text.
    if seconds == "Infinity":
        return "ages"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        return "-"
    if seconds > _AGES:
        return "ages"
    value = max(0.0, seconds)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 59.5:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    value = round(value)  # before it is divided: 119.6 s are two minutes, not one and 60 s
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    if value < 86_400:
        return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"
    return f"{value // 86_400:.0f} d {value % 86_400 // 3600:.0f} h"
