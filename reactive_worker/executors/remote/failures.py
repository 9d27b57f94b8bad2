"""What errors of a remote agent mean for the task: tried again, later, or never."""

from __future__ import annotations

from a2a.client.errors import A2AClientError, AgentCardResolutionError
from a2a.utils.errors import A2AError, InternalError, TaskNotFoundError
from httpx import ConnectError, HTTPStatusError

from reactive_worker.errors import PermanentFailure, ReactiveWorkerError
from reactive_worker.execution.sanitise import describe
from reactive_worker.executors._retry_after import busy

_PASSING = frozenset({408, 425, 429})


class RemoteAgentError(ReactiveWorkerError):
    """A remote agent cannot be reached or broke off; counts one failure, and the next run goes on there."""


def status_of(error: BaseException) -> int | None:
    """HTTP status behind an error of the a2a client, where there was one."""
    if isinstance(error, AgentCardResolutionError) and error.status_code is not None:
        return error.status_code
    cause = error.__cause__
    return cause.response.status_code if isinstance(cause, HTTPStatusError) else None


def never_sent(error: BaseException) -> bool:
    """True when the request cannot have reached the agent."""
    return isinstance(error.__cause__, ConnectError)


def is_passing(error: BaseException) -> bool:
    """True when the same request may succeed later: the network, an overload, an error on their side."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in _PASSING
    # What has a kind of its own (unknown task, wrong parameters, no such operation) says the same tomorrow.
    return isinstance(error, A2AClientError | InternalError)


def failure_of(error: A2AError, doing: str) -> ReactiveWorkerError:
    """The exception to leave `execute()` with.

    Parameters
    ----------
    error:
        What the a2a client raised.
    doing:
        What was tried, for the message: ``"sending the message"``.
    """
    text = f"{doing} failed: {type(error).__name__}: {describe(error)}"
    if status_of(error) == 429:
        cause = error.__cause__
        return busy(
            "the remote agent", text, cause.response.headers if isinstance(cause, HTTPStatusError) else {}
        )
    if is_passing(error):
        return RemoteAgentError(text)
    if isinstance(error, TaskNotFoundError):
        return PermanentFailure(f"the remote agent does not know this task any more: {text}")
    return PermanentFailure(text)
