"""Every exception a user can meet, and what to do about it.

One root, `ReactiveWorkerError`; a class's docstring is its default message. The text of an error says
what happened, where, and what to do next, and never contains a key.
"""

from __future__ import annotations

from datetime import timedelta


class ReactiveWorkerError(Exception):
    """Something went wrong in reactive-worker."""

    #: Process exit code of the command line when this error ends it.
    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(ReactiveWorkerError):
    """A setting is missing or wrong."""

    exit_code = 2


class SupabaseError(ReactiveWorkerError):
    """Supabase refused or failed a request."""

    exit_code = 3

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message)
        #: SQLSTATE, PostgREST code (``PGRST...``) or HTTP status of the answer, where there was one.
        self.code = code


class UnreachableError(SupabaseError):
    """Supabase cannot be reached: check SUPABASE_URL and that the server runs. Worth trying again."""


class UnreadableAnswerError(UnreachableError):
    """What answered is no Supabase: a page of a proxy, half an answer, or nothing. Worth trying again."""


class InvalidKeyError(SupabaseError):
    """Supabase does not accept this key: check that key and URL belong to the same project."""


class TokenExpiredError(InvalidKeyError):
    """The token has expired: sign in again, or mint a new one with `reactive-worker token mint`."""


class PermissionDeniedError(SupabaseError):
    """The key's role may not do this: a worker needs its token or the service role key, a user a session."""


class SchemaMissingError(SupabaseError):
    """The tables or functions are not there: apply the migrations with `supabase db push`."""


class TaskNotFoundError(ReactiveWorkerError):
    """No such task, or it belongs to somebody else."""


class TaskConflictError(ReactiveWorkerError):
    """The task is not in a state that allows this."""


class QuotaExceededError(ReactiveWorkerError):
    """This user has as many open tasks as the project allows (`supabase/optional/quota.sql`)."""


class InvalidTaskError(ReactiveWorkerError):
    """A row or an argument cannot be used as a task."""


class ClientClosedError(ReactiveWorkerError):
    """The client was closed while this waited; the task goes on: wait again with another client."""


class EventLoopError(ReactiveWorkerError):
    """A supabase client is used in another event loop than the first one: make one in each loop."""


class DataRefusedError(InvalidTaskError):
    """The database refuses what was sent for a reason that lies in it: the same again would fail again."""

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message)
        #: SQLSTATE, PostgREST code or HTTP status of the answer, where there was one.
        self.code = code


class WorkerExpiredError(ReactiveWorkerError):
    """This worker's lease has run out and its tasks were handed to others; it must register again."""


class LeaseLostError(ReactiveWorkerError):
    """The task is another worker's now: stop, nothing more of this run is stored."""


class EventRefusedError(ReactiveWorkerError, ValueError):
    """An event an executor published cannot be stored; it was left out."""


class EventTooLargeError(EventRefusedError):
    """An event is larger than the limit: publish smaller parts, or store the file and send its url."""


class WorkerStoppedError(ReactiveWorkerError):
    """A background duty of the worker died, so the worker stopped rather than look healthy."""

    exit_code = 4


class ExecutorLoadError(ConfigurationError):
    """The executor cannot be imported, or is no a2a AgentExecutor."""


class PermanentFailure(ReactiveWorkerError):
    """Raise inside an executor: the task fails now, whatever is left of its retry budget."""


#: Longest wait a `RetryLater` may ask for, in seconds: a year. Longer ones are a mistake in units, and
#: PostgreSQL's timestamps do end somewhere.
LONGEST_DELAY = 366 * 86_400.0


class RetryLater(ReactiveWorkerError):
    """Raise inside an executor: run the task again after `delay`.

    Parameters
    ----------
    delay:
        Seconds, or a timedelta, until the task is due again; what is below 0 or no number counts as 0, what
        is above a year as a year.
    message:
        Why; stored in the ``task_retrying`` event.
    counts:
        False when this must not use up the task's retry budget, as with a rate limit.
    within:
        With ``counts=False``: seconds, or a timedelta, that such waits may go on, from the first in a row;
        each one after that counts. None: for as long as they are asked for.

    Raises
    ------
    TypeError
        `delay` or `within` is neither.

    Example
    -------
    >>> RetryLater(timedelta(minutes=5), "rate limit").delay
    300.0
    """

    def __init__(
        self,
        delay: float | timedelta,
        message: str | None = None,
        *,
        counts: bool = True,
        within: float | timedelta | None = None,
    ) -> None:
        wait = _seconds(delay)
        super().__init__(message or f"try again in {wait:g} s")
        #: Seconds, from 0 to `LONGEST_DELAY`.
        self.delay = wait
        self.counts = counts
        #: Seconds, or None.
        self.within = None if within is None else _seconds(within)


def _seconds(delay: float | timedelta) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - executors may be untyped
        raise TypeError(f"RetryLater takes seconds or a timedelta, not {type(delay).__name__}")
    # Compared before it is converted: a large integer does not fit a float. NaN compares with nothing.
    return LONGEST_DELAY if seconds >= LONGEST_DELAY else float(seconds) if seconds > 0 else 0.0
