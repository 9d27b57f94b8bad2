"""What leaves an executor as text is made storable, bounded and free of keys. Pure functions."""

from __future__ import annotations

import os
import sysconfig
import traceback
from typing import Any, cast

from reactive_worker.access.redaction import redact

#: The standard library, and this package.
_INSTALLED = (sysconfig.get_path("stdlib"), os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

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


def name_of(error: BaseException) -> str:
    """The class of an exception."""
    try:
        return shorten(storable(str.__str__(type(error).__name__)), 200)
    except BaseException:  # noqa: BLE001 - a metaclass of the user's may say anything of itself
        return "Exception"


def describe(error: BaseException) -> str:
    """The message of an exception: redacted, storable, bounded; its class name when it has none."""
    try:
        # Not the subclass of str that a __str__ may return, with methods of its own.
        text = str.__str__(str(error))
    except BaseException as broken:  # noqa: BLE001 - a user's own __str__ may raise anything
        text = f"(its message cannot be shown: {name_of(broken)})"
    return shorten(redact(storable(text[:_WINDOW])), MESSAGE_LIMIT) or name_of(error)


def place_of(error: BaseException) -> str:
    """Where an exception was raised, for a line of log: the last file and line outside of installed packages.

    >>> try:
    ...     {}["no"]
    ... except KeyError as error:
    ...     place_of(error).endswith("line 2")
    True
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    frame = (own or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _is_installed(file: str) -> bool:
    return file.startswith(_INSTALLED) or f"{os.sep}site-packages{os.sep}" in file


def error_record(error: BaseException, *, kind: str | None = None) -> dict[str, str]:
    """What `todolist.error` holds about an exception: ``{"type", "message", "traceback"}``.

    Made of any exception, those included that `traceback` cannot print.

    Parameters
    ----------
    error:
        What was raised.
    kind:
        ``type`` to record instead of the class name, for example ``timeout``.
    """
    tail = redact(storable(_traceback(error)[-_WINDOW:]))
    if len(tail) > TRACEBACK_LIMIT:
        # The tail holds the frame that raised and the message; whole lines only.
        tail = "…\n" + tail[-TRACEBACK_LIMIT:].partition("\n")[2]
    return {"type": kind or name_of(error), "message": describe(error), "traceback": tail}


def _traceback(error: BaseException) -> str:
    # A chain of causes of any length would be printed whole, a group of groups deeper than the stack.
    chain = _chain_length(error) <= _MOST_CHAINED
    try:
        return "".join(traceback.format_exception(error, chain=chain))
    except BaseException as broken:  # noqa: BLE001 - it calls the user's __str__, __repr__, __notes__ and more
        why = name_of(broken)
    try:
        frames = "".join(traceback.format_tb(error.__traceback__))
    except BaseException as broken:  # noqa: BLE001 - frames may name files that cannot be read
        frames, why = "", name_of(broken)
    return f"{frames}(the rest cannot be printed: {why})"


#: Exceptions, by cause, context and group, that a traceback shows at most.
_MOST_CHAINED = 100


def _chain_length(error: BaseException) -> int:
    todo: list[BaseException | None] = [error]
    seen = set[int]()
    while todo and len(seen) <= _MOST_CHAINED:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        todo += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            todo += list(each.exceptions)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] - of any exception
    return len(seen)
