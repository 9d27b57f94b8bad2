"""The headers that shape an answer: Prefer, Accept, Range and Content-Type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from reactive_worker.local.rest.errors import ApiError, bad_body, bad_range, unsupported

_VALUES = {
    "return": ("minimal", "representation", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "handling": ("lenient", "strict"),
    "tx": ("commit", "rollback"),
}

JSON = "application/json"
_OBJECT = "application/vnd.pgrst.object"
_ARRAY = "application/vnd.pgrst.array"


@dataclass(frozen=True)
class Preferences:
    """What ``Prefer`` asks for; the first mention of a name counts."""

    returns: str = "minimal"
    count: bool = False
    resolution: str | None = None
    missing_default: bool = False
    max_affected: int | None = None
    #: For the header Preference-Applied.
    applied: tuple[str, ...] = field(default=(), compare=False)


def parse_preferences(headers: Sequence[str]) -> Preferences:
    """Read all ``Prefer`` headers of a request.

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
        if value in _VALUES.get(name, ()) or (name == "max-affected" and re.fullmatch(r"\d{1,9}", value)):
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
    limit = found.get("max-affected") if strict else None
    # The server commits every transaction, as PostgREST does unless it is configured otherwise.
    applied = tuple(f"{name}={value}" for name, value in found.items() if name not in ("tx", "max-affected"))
    return Preferences(
        returns=found.get("return", "minimal"),
        # The other two kinds of count are guesses, and an exact one is a good guess.
        count="count" in found,
        resolution=found.get("resolution"),
        missing_default=found.get("missing") == "default",
        max_affected=int(limit) if limit is not None else None,
        applied=(*applied, f"max-affected={limit}") if limit is not None else applied,
    )


@dataclass(frozen=True)
class Media:
    """The media type of the answer."""

    content_type: str
    single: bool = False
    strip_nulls: bool = False


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
        if name in (_OBJECT, f"{_OBJECT}+json"):
            suffix = ";nulls=stripped" if strip else ""
            return Media(f"{_OBJECT}+json{suffix}; charset=utf-8", single=True, strip_nulls=strip)
        if name in (_ARRAY, f"{_ARRAY}+json"):
            suffix = ";nulls=stripped" if strip else ""
            return Media(
                f"{_ARRAY}+json{suffix}; charset=utf-8" if strip else _JSON_MEDIA.content_type,
                strip_nulls=strip,
            )
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


def need_json(header: str | None) -> None:
    """Refuse a body that is not JSON.

    Raises
    ------
    ApiError
        ``PGRST102``.
    """
    kind = media_type(header)
    if kind != JSON:
        raise bad_body(f"Content-Type not acceptable: {kind}")


def parse_range(header: str | None, unit: str | None) -> tuple[int, int | None] | None:
    """A ``Range`` header in rows, as offset and limit; None when there is none.

    Raises
    ------
    ApiError
        ``PGRST103``: the end lies before the start.
    """
    # bytes=0-100 and the like are meant for somebody else.
    match = re.fullmatch(r"(\d{1,18})-(\d{1,18})?", header.strip()) if header else None
    if match is None or (unit is not None and unit.strip().lower() != "items"):
        return None
    first, last = int(match[1]), int(match[2]) if match[2] else None
    if last is None:
        return first, None
    if last < first:
        raise bad_range(
            "The lower boundary must be lower than or equal to the upper boundary in the Range header."
        )
    return first, last - first + 1
