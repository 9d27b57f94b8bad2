"""Turn what PostgREST, its gateway and the network say into our errors, with what to do about it."""

from __future__ import annotations

import httpx
from postgrest.exceptions import APIError

from reactive_worker.access.credentials import Credentials
from reactive_worker.access.redaction import redact
from reactive_worker.access.tokens import WORKER_ROLE
from reactive_worker.errors import (
    DataRefusedError,
    EventRefusedError,
    InvalidKeyError,
    InvalidTaskError,
    PermissionDeniedError,
    QuotaExceededError,
    ReactiveWorkerError,
    SchemaMissingError,
    SupabaseError,
    TaskConflictError,
    TaskNotFoundError,
    TokenExpiredError,
    UnreachableError,
    UnreadableAnswerError,
    WorkerExpiredError,
)

#: PostgREST could not find the function, the table or the schema.
_MISSING = frozenset({"PGRST202", "PGRST205", "42883", "42P01", "3F000"})
_BAD_KEY = frozenset({"PGRST300", "PGRST301", "PGRST302", "PGRST303"})
#: SQLSTATE classes and PostgREST codes that pass by themselves: connection, resources, shutdown, rollback.
_PASSING_CLASSES = ("08", "53", "57", "40", "58", "XX")
_PASSING = frozenset({"PGRST000", "PGRST001", "PGRST002", "PGRST003", "25006", "55P03"})
#: Classes and codes that are about the data itself: values, constraints, limits (too deep, too large,
#: or too many in one batch: alone it may pass). P0001 is what `raise exception` says in a trigger of the
#: project's own: a verdict about a row, and not weather.
_ABOUT_DATA_CLASSES = ("22", "23", "54")
_ABOUT_DATA = frozenset({"413", "P0001"})
#: Characters shown of what a proxy answers with.
_PAGE = 300


def translate(
    error: Exception, *, what: str, url: str, credentials: Credentials | None = None
) -> ReactiveWorkerError:
    """Return the error a user should meet for `error`, raised while doing `what` against `url`.

    Parameters
    ----------
    error:
        What postgrest or httpx raised.
    what:
        The operation, for example ``rpc claim_todos``.
    url:
        The project URL; keys never appear in it.
    credentials:
        What was sent, to say which token has expired.
    """
    if isinstance(error, ReactiveWorkerError):
        return error
    if isinstance(error, APIError):
        return _api_error(error, what, url, credentials)
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{url} did not answer in time ({what}): check the network and the project")
    if isinstance(error, httpx.HTTPError | OSError):
        reason = redact(str(error)) or type(error).__name__
        return UnreachableError(
            f"cannot reach {url} ({what}): {reason}. Check SUPABASE_URL and that the server runs"
        )
    return SupabaseError(f"{what} failed at {url}: {type(error).__name__}: {redact(str(error))}")


def _api_error(error: APIError, what: str, url: str, credentials: Credentials | None) -> ReactiveWorkerError:
    code = "" if error.code is None else str(error.code)
    message = redact(error.message or "no message")
    lowered = message.lower()
    if code == "RW001":
        return WorkerExpiredError(message)
    if code == "PT404":
        return TaskNotFoundError(message)
    if code == "PT409":
        return TaskConflictError(message)
    if code == "PT429":
        return QuotaExceededError(f"{message}. {redact(error.hint or '')}".rstrip())
    if code in _MISSING:
        return SchemaMissingError(
            f"{url} has no such table or function ({what}: {message}). "
            "Apply the migrations: `supabase db push` (and `reactive-worker init` before it, "
            "if this project has no supabase/ folder)",
            code=code,
        )
    if code == "PGRST303" and "expired" in lowered:
        return TokenExpiredError(expired_text(url, message, credentials), code=code)
    if code in _BAD_KEY or (code in ("", "401") and "key" in lowered):
        return InvalidKeyError(
            f"{url} does not accept this key ({message}): check that URL and key belong to the same project",
            code=code,
        )
    if code in ("42501", "401", "403"):
        return PermissionDeniedError(
            f"the key's role may not do this ({what}: {message}). A worker needs the service role key or a "
            "worker token; a client needs the service role key or a signed-in user (the anon key may do "
            "nothing here)",
            code=code,
        )
    if is_about_data(code):
        return DataRefusedError(f"{what} was refused: {message}", code=code)
    if code.startswith("PGRST1"):
        return InvalidTaskError(f"{what} was refused: {message}")
    if len(code) == 3 and code.startswith("2"):
        # postgrest could not make sense of a good status.
        return unreadable(url, what)
    if is_passing(code):
        return UnreachableError(f"{url} cannot answer now ({what}: {message})", code=code)
    details = f" ({redact(str(error.details)[:_PAGE])})" if error.details else ""
    return SupabaseError(f"{what} failed at {url}: {message}{details} [{code or 'no code'}]", code=code)


def expired_text(url: str, message: str, credentials: Credentials | None) -> str:
    """What a person should read when a token has expired: which one, and how to get another."""
    facts = credentials.facts() if credentials is not None else None
    which = f"the token has expired ({message}; {facts})" if facts else f"the token has expired ({message})"
    if facts is not None and facts.role == WORKER_ROLE:
        cure = (
            "make a new one with `reactive-worker token mint` and put it into SUPABASE_WORKER_TOKEN, "
            "or into the file of SUPABASE_WORKER_TOKEN_FILE, which is read again without a restart"
        )
    else:
        cure = (
            "sign in again, or let the supabase client refresh its session; project keys hardly ever expire"
        )
    return f"{url}: {which}: {cure}"


def unreadable(url: str, what: str) -> UnreadableAnswerError:
    """The error for an answer with a good status that is not what the call answers with."""
    return UnreadableAnswerError(
        f"{url} answered {what} with no JSON that Supabase would send (a page of a proxy, half an answer, "
        "none): is it the project's own server that answers there?"
    )


def is_about_data(code: str) -> bool:
    """True when an error with this SQLSTATE or HTTP status lies in what was sent."""
    return code in _ABOUT_DATA or (len(code) == 5 and code.startswith(_ABOUT_DATA_CLASSES))


def is_passing(code: str) -> bool:
    """True when an error with this SQLSTATE, PostgREST code or HTTP status is worth trying again."""
    if code in _PASSING or code in ("408", "425", "429"):
        return True
    if len(code) == 3 and code.startswith("5"):
        return True
    return len(code) == 5 and code.startswith(_PASSING_CLASSES)


def is_retryable(error: BaseException) -> bool:
    """True unless the error is about the data itself: all else passes, or is mended from outside.

    A key that is rotated, a firewall, a schema that is being reloaded or a page of a proxy must not cost a
    finished result: whoever has one tries again for as long as the process lives, and spools it then. What is
    none of our errors nor the network's comes from making the request: the next one would fail as well.
    """
    if isinstance(error, ReactiveWorkerError):
        return not isinstance(error, DataRefusedError | EventRefusedError)
    return isinstance(error, httpx.HTTPError | OSError)
