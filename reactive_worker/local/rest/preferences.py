"""The headers that shape an answer: Prefer, Accept, Range and Content-Type."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from reactive_worker.local.rest.errors import ApiError, bad_range, unsupported

_VALUES = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("minimal", "representation", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "tx": ("commit", "rollback"),
    "handling": ("lenient", "strict"),
}
#: In the order in which they are confirmed; a transaction is always committed, so `tx` is not.
_CONFIRMED = ("resolution", "missing", "return", "count", "handling", "timezone", "max-affected")

JSON, CSV, FORM = "application/json", "text/csv", "application/x-www-form-urlencoded"
_OBJECT = "application/vnd.pgrst.object"
_ARRAY = "application/vnd.pgrst.array"

Count = Literal["exact", "planned", "estimated"]


@dataclass(frozen=True)
class Preferences:
    """What ``Prefer`` asks for; the first mention of a name counts."""

    returns: str = "minimal"
    count: Count | None = None
    resolution: str | None = None
    missing_default: bool = False
    max_affected: int | None = None
    timezone: str | None = None
    #: All that was understood, by name.
    found: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def counts(self) -> bool:
        """Whether rows are counted one by one; the number of a plan is a guess."""
        return self.count in ("exact", "estimated")

    def confirmed(self, *without: str) -> str:
        """The header ``Preference-Applied``, without preferences that were of no use; empty: none was."""
        names = (name for name in _CONFIRMED if name in self.found and name not in without)
        return ", ".join(f"{name}={self.found[name]}" for name in names)


def parse_preferences(headers: Sequence[str], timezones: Collection[str] = ()) -> Preferences:
    """Read all ``Prefer`` headers of a request.

    Parameters
    ----------
    timezones:
        Names of the time zones there are, if one is preferred.

    Raises
    ------
    ApiError
        ``PGRST122``: ``handling=strict`` was asked for, and something is not understood.
    """
    found: dict[str, str] = {}
    unknown: list[str] = []
    for item in ",".join(headers).split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        if not name:
            continue
        if (
            value in _VALUES.get(name, ())
            or (name == "timezone" and value in timezones)
            or (name == "max-affected" and re.fullmatch(r"\d{1,9}", value))
        ):
            found.setdefault(name, value)
        else:
            unknown.append(item.strip())
    strict = found.get("handling") == "strict"
    if strict and unknown:
        raise ApiError(
            400,
            "PGRST122",
            "Invalid preferences given with handling=strict",
            f"Invalid preferences: {', '.join(unknown)}",
        )
    if found.get("return") == "headers-only":
        raise unsupported("Prefer: return=headers-only")
    if not strict:
        found.pop("max-affected", None)
    limit = found.get("max-affected")
    return Preferences(
        returns=found.get("return", "minimal"),
        count=cast("Count | None", found.get("count")),
        resolution=found.get("resolution"),
        missing_default=found.get("missing") == "default",
        max_affected=int(limit) if limit is not None else None,
        timezone=found.get("timezone"),
        found=found,
    )


@dataclass(frozen=True)
class Media:
    """The media type of the answer."""

    content_type: str
    single: bool = False
    strip_nulls: bool = False
    csv: bool = False


_JSON_MEDIA = Media(f"{JSON}; charset=utf-8")


def parse_accept(header: str | None) -> Media:
    """Choose the first media type in ``Accept`` that can be produced.

    Raises
    ------
    ApiError
        ``PGRST107``: none can.
    """
    if not header or header == "*/*":
        return _JSON_MEDIA
    parts = [part.replace(" ", "") for part in header.split(",")]
    # The most wanted first, and of those the most precise.
    for text in sorted(parts, key=lambda part: (-_quality(part), part.count("*") - part.count(";"))):
        name, *options = text.lower().split(";")
        strip = "nulls=stripped" in options
        if name in ("*/*", JSON):
            return _JSON_MEDIA
        if name == CSV:
            return Media(f"{CSV}; charset=utf-8", csv=True)
        if name in (_OBJECT, f"{_OBJECT}+json"):
            suffix = ";nulls=stripped" if strip else ""
            return Media(f"{_OBJECT}+json{suffix}; charset=utf-8", single=True, strip_nulls=strip)
        if name in (_ARRAY, f"{_ARRAY}+json"):
            suffix = ";nulls=stripped" if strip else ""
            return Media(
                f"{_ARRAY}+json{suffix}; charset=utf-8" if strip else _JSON_MEDIA.content_type,
                strip_nulls=strip,
            )
        if name == "application/geo+json":
            raise unsupported("GeoJSON")
    raise ApiError(
        406,
        "PGRST107",
        f"None of these media types are available: {', '.join(parts)}",
    )


def _quality(part: str) -> float:
    match = re.search(r";\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", part)
    return float(match.group(1)) if match else 1.0


def media_type(header: str | None) -> str:
    """The media type of a body, without its parameters; JSON when nothing is said."""
    return (header or JSON).split(";", 1)[0].strip().lower() or JSON


def parse_range(header: str | None) -> tuple[int, int | None] | None:
    """A ``Range`` header in rows, as the first and the last of them; None when there is none.

    Raises
    ------
    ApiError
        ``PGRST103``: the end lies before the start.
    """
    # bytes=0-100 and the like are meant for somebody else.
    match = re.fullmatch(r"(\d{1,18})-(\d{1,18})?", header.strip()) if header else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2]) if match[2] else None
    if last is not None and last < first:
        raise bad_range(
            "The lower boundary must be lower than or equal to the upper boundary in the Range header."
        )
    return first, last


def narrowed(span: tuple[int, int | None], offset: int, limit: int | None) -> tuple[int, int | None]:
    """Offset and limit of the rows that both a ``Range`` header and the query ask for.

    Raises
    ------
    ApiError
        ``PGRST103``: they have none in common.

    Example
    -------
    >>> narrowed((5, 20), offset=0, limit=10)
    (5, 5)
    """
    if limit == 0:
        return 0, 0
    first = max(span[0], offset)
    ends = [each for each in (span[1], offset + limit - 1 if limit is not None else None) if each is not None]
    if not ends:
        return first, None
    if min(ends) < first:
        raise bad_range("Limit should be greater than or equal to zero.")
    return first, min(ends) - first + 1
