"""How a run ended, as values: what an exception means, and what is written about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from reactive_worker.errors import InvalidTaskError, PermanentFailure, RetryLater
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.sanitise import MESSAGE_LIMIT, error_record, shorten
from reactive_worker.models import Outcome, Todo, parse_time

FAILED = "TASK_STATE_FAILED"

E = TypeVar("E", bound=BaseException)


def outcome_of_exception(
    error: BaseException, todo: Todo, backoff: Callable[[int], float], now: datetime
) -> Outcome:
    """What an exception that left `execute()` means for the task.

    RetryLater and PermanentFailure say it themselves, also from inside an ExceptionGroup (a TaskGroup wraps
    whatever its children raise); a PermanentFailure wins over a RetryLater. Anything else is one failure.

    Parameters
    ----------
    error:
        What `execute()` raised.
    todo:
        The row, for its failures so far.
    backoff:
        Seconds to wait after so many failures.
    now:
        Wall clock.
    """
    permanent = find(error, PermanentFailure)
    if permanent is not None:
        return failed(error_record(permanent))
    later = find(error, RetryLater)
    if later is not None:
        return _waiting(later, todo, now)
    record = error_record(error)
    if isinstance(error, asyncio.CancelledError):
        record["message"] = "execute() was cancelled from inside, not by the worker"
    elif not isinstance(error, Exception):
        record["message"] = f"execute() raised {record['type']}: {record['message']}"
    return Outcome("retry", error=record, task_state=FAILED, retry_after=backoff(todo.failures))


def _waiting(later: RetryLater, todo: Todo, now: datetime) -> Outcome:
    record: dict[str, Any] = error_record(later)
    counts = later.counts
    if not counts:
        # Kept in the row between its runs: nothing else remembers how often it was put off, and since when.
        waits, since = _waits_before(todo, now)
        record |= {"waits": waits + 1, "since": since.isoformat()}
        if later.within is not None and (now - since).total_seconds() >= later.within:
            counts = True
            note = f"put off {waits + 1} times since {since:%Y-%m-%d %H:%M} UTC, so it counts now"
            record["message"] = shorten(f"{note}: {record['message']}", MESSAGE_LIMIT)
    return Outcome(
        "retry", error=record, task_state=FAILED, retry_after=later.delay, counts_as_failure=counts
    )


def _waits_before(todo: Todo, now: datetime) -> tuple[int, datetime]:
    if not isinstance(todo.error, Mapping):
        return 0, now
    before = cast("Mapping[str, Any]", todo.error)
    waits = before.get("waits")
    if not isinstance(waits, int):
        return 0, now
    try:
        return waits, parse_time(before.get("since"), "since")
    except InvalidTaskError:
        return waits, now


def failed(error: Mapping[str, Any], fold: Fold | None = None, *, task_state: str = FAILED) -> Outcome:
    """A failure that is not tried again; `agent_output` is the error, with what was produced until then."""
    return Outcome("failed", output=failed_output(error, fold), error=error, task_state=task_state)


def failed_output(error: Mapping[str, Any], fold: Fold | None) -> dict[str, Any]:
    output: dict[str, Any] = {"error": dict(error)}
    if fold is not None:
        partial = fold.output()
        if partial.get("artifacts"):
            output |= partial
    return output


def find(error: BaseException, kind: type[E]) -> E | None:
    """The first exception of this kind in an exception or a group of them."""
    return next((each for each in members(error) if isinstance(each, kind)), None)


def members(error: BaseException, *, causes: bool = False) -> Iterator[BaseException]:
    """An exception and, of a group, all in it, the outermost first; each once, however they are nested.

    Parameters
    ----------
    causes:
        Also what each was raised from.
    """
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            todo.extend(each.exceptions)  # pyright: ignore[reportUnknownArgumentType] - of any exception
        if causes and each.__cause__ is not None:
            todo.append(each.__cause__)
