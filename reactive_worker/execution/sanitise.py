"""What leaves an executor as text is made storable, bounded and free of keys. Pure functions."""

from __future__ import annotations

import traceback
from typing import Any, cast

from reactive_worker.access.redaction import redact

#: Characters kept of an error's message and of its traceback. Enough for the frames that matter; a row of
#: `todolist` is read by lists and dashboards and must not carry a dump.
MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 4_000

# Patterns look only at a window this large: redaction has to see whole keys, so it runs before the text is
# cut, but an error message of 50 MB must not cost seconds.
_WINDOW = 65_536


def storable(text: str) -> str:
    """Replace what PostgreSQL cannot store: NUL becomes U+FFFD, a lone surrogate becomes ``?``."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode("utf-8")


def without_nul(value: Any) -> Any:
    """Copy a JSON value with every NUL in its strings and keys replaced by U+FFFD.

    NUL is valid in protobuf and in JSON, and refused by ``jsonb`` (22P05).
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key.replace("\0", "\ufffd"): without_nul(item) for key, item in items}
    if isinstance(value, list):
        return [without_nul(item) for item in cast("list[Any]", value)]
    return value


def shorten(text: str, limit: int) -> str:
    """Keep the beginning of a text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def describe(error: BaseException) -> str:
    """The message of an exception: redacted, storable, bounded; its class name when it has none."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's own __str__ may raise anything
        text = f"(its message cannot be shown: {type(broken).__name__})"
    return shorten(redact(storable(text[:_WINDOW])), MESSAGE_LIMIT) or type(error).__name__


def error_record(error: BaseException, *, kind: str | None = None) -> dict[str, str]:
    """What `todolist.error` holds about an exception: ``{"type", "message", "traceback"}``.

    Parameters
    ----------
    error:
        What was raised.
    kind:
        ``type`` to record instead of the class name, for example ``timeout``.
    """
    lines = "".join(traceback.format_exception(error))
    tail = redact(storable(lines[-_WINDOW:]))
    if len(tail) > TRACEBACK_LIMIT:
        # The tail holds the frame that raised and the message; whole lines only.
        tail = "…\n" + tail[-TRACEBACK_LIMIT:].partition("\n")[2]
    return {"type": kind or type(error).__name__, "message": describe(error), "traceback": tail}
