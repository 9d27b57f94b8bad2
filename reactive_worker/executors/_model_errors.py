"""What errors of a language model mean for the task: tried again, later, or never. For all frameworks."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from reactive_worker.access.redaction import REDACTED
from reactive_worker.errors import PermanentFailure, ReactiveWorkerError, RetryLater
from reactive_worker.execution.outcome import members
from reactive_worker.execution.sanitise import describe, shorten
from reactive_worker.executors._retry_after import busy

#: Client errors that say nothing about the request: time-out, conflict, too early.
_PASSING = frozenset({408, 409, 425})
_ADVICE = {
    401: "check OPENAI_API_KEY, and that it belongs to OPENAI_BASE_URL",
    403: "the key may not use this model or endpoint",
    404: "check the model's name and OPENAI_BASE_URL",
}


class ModelError(ReactiveWorkerError):
    """The model cannot be reached, failed or broke off in the middle; counts one failure."""


@contextmanager
def model_errors() -> Generator[None]:
    """Turn what a model's client raises inside into what the worker understands.

    429 becomes `RetryLater`: as long as its Retry-After says and, for a day of such waits, without counting a
    failure, or 30 s and counted if it says nothing. 5xx, 408, no connection, and a stream that broke off
    become `ModelError`, an ordinary failure; all other statuses `PermanentFailure`. Everything else passes.
    The new exception has no cause: clients quote requests, and a key must not reach the stored traceback.

    Raises
    ------
    RetryLater, ModelError, PermanentFailure
        As described.

    Example
    -------
    >>> with model_errors():  # doctest: +SKIP
    ...     await client.chat.completions.create(...)
    """
    try:
        yield
    except Exception as error:
        found = failure_of(error)
        if found is None:
            raise
        raise found from None


def failure_of(error: BaseException) -> ReactiveWorkerError | None:
    """The exception to leave `execute()` with; None when `error` is no model's.

    Works by shape, not by class: the clients of OpenAI, Anthropic, LiteLLM and others look alike, and none of
    them need be installed. A framework may have wrapped the error: its causes are looked at, too.
    """
    for each in members(error, causes=True):
        if isinstance(each, RetryLater | PermanentFailure):
            return None
        status = getattr(each, "status_code", None)
        headers = getattr(getattr(each, "response", None), "headers", None)
        if isinstance(status, int) and headers is not None:
            return _of_status(status, headers, _text(each))
        if _is_transport(each):
            # The cause says more than the client's "Connection error."
            cause = each.__cause__
            because = f" ({type(cause).__name__}: {_text(cause)})" if cause is not None else ""
            return ModelError(f"the connection to the model failed: {_text(each)}{because}")
    return None


def _of_status(status: int, headers: Any, text: str) -> ReactiveWorkerError:
    if status == 429:
        return busy("the model", text, headers)
    if status >= 500 or status in _PASSING:
        return ModelError(f"the model failed with HTTP {status}: {text}")
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return PermanentFailure(f"the model refused with HTTP {status}: {text}{advice}")


def _is_transport(error: BaseException) -> bool:
    """True for what breaks underneath a client: by name, since httpx and httpx2 are both in use."""
    names = {f"{each.__module__.partition('.')[0]}.{each.__name__}" for each in type(error).__mro__}
    return not names.isdisjoint(
        {
            "openai.APIConnectionError",
            "anthropic.APIConnectionError",
            "litellm.APIConnectionError",
            "httpx.TransportError",
            "httpx2.TransportError",
            "httpcore.NetworkError",
            "httpcore.ProtocolError",
        }
    )


def _text(error: BaseException) -> str:
    text = describe(error)
    # Some servers quote the key they refuse, and not every key looks like one.
    for name, key in os.environ.items():
        if name.endswith("_API_KEY") and len(key) >= 8:
            text = text.replace(key, REDACTED)
    return shorten(text, 500)
