"""How a run ended, as values: what an exception means, and what is written about it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from reactive_worker.errors import PermanentFailure, RetryLater
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.sanitise import error_record
from reactive_worker.models import Outcome, Todo

FAILED = "TASK_STATE_FAILED"

# A year: longer waits are a mistake in the executor, and PostgreSQL's intervals and timestamps do end
# somewhere.
_LONGEST_DELAY = 366 * 86_400.0


def outcome_of_exception(error: BaseException, todo: Todo, backoff: Callable[[int], float]) -> Outcome:
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
    """
    permanent = find(error, PermanentFailure)
    if permanent is not None:
        return failed(error_record(permanent))
    later = find(error, RetryLater)
    if later is not None:
        return Outcome(
            "retry",
            error=error_record(later),
            task_state=FAILED,
            retry_after=_sane_delay(later.delay),
            counts_as_failure=later.counts,
        )
    record = error_record(error)
    if isinstance(error, asyncio.CancelledError):
        record["message"] = "execute() was cancelled from inside, not by the worker"
    elif isinstance(error, SystemExit | KeyboardInterrupt):
        record["message"] = f"execute() raised {type(error).__name__}: {record['message']}"
    return Outcome("retry", error=record, task_state=FAILED, retry_after=backoff(todo.failures))


def failed(error: dict[str, str], fold: Fold | None = None, *, task_state: str = FAILED) -> Outcome:
    """A failure that is not tried again; `agent_output` is the error, with what was produced until then."""
    return Outcome("failed", output=failed_output(error, fold), error=error, task_state=task_state)


def failed_output(error: dict[str, str], fold: Fold | None) -> dict[str, Any]:
    output: dict[str, Any] = {"error": error}
    if fold is not None:
        partial = fold.output()
        if partial.get("artifacts"):
            output |= partial
    return output


def find(error: BaseException, kind: type[Any]) -> Any | None:
    """The first exception of this kind in an exception or a group of them."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:  # pyright: ignore[reportUnknownVariableType]
            found = find(inner, kind)  # pyright: ignore[reportUnknownArgumentType]
            if found is not None:
                return found
    return None


def _sane_delay(delay: float) -> float:
    if math.isnan(delay) or delay < 0:
        return 0.0
    return min(float(delay), _LONGEST_DELAY)
