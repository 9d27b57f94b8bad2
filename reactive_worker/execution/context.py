"""The request context an executor gets: a real a2a RequestContext made from a row of `todolist`."""

from __future__ import annotations

import copy
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, Self
from urllib.parse import quote

from a2a.auth.user import User
from a2a.server.agent_execution import RequestContext
from a2a.server.context import ServerCallContext
from a2a.types import Message, SendMessageRequest, Task

from reactive_worker.execution._a2a import set_request
from reactive_worker.execution.conversation import Conversation, RunReason, ids_of, request_of
from reactive_worker.execution.steering import Steering, SteerMessage
from reactive_worker.models import Todo


class RowUser(User):
    """The owner of a row; unauthenticated when it has none."""

    def __init__(self, owner_id: str | None) -> None:
        self._owner_id = owner_id

    @property
    def is_authenticated(self) -> bool:
        return self._owner_id is not None

    @property
    def user_name(self) -> str:
        return self._owner_id or ""


class TodoRequestContext(RequestContext):
    """What `AgentExecutor.execute` is called with.

    Everything of a2a's RequestContext works; beyond it, the row is at hand unchanged, while A2A's own
    metadata turns every integer into a float. Subclass it to add methods of your own, and pass the class as
    the runner's `context_factory`.

    Parameters
    ----------
    todo:
        The claimed row.
    task:
        `current_task`: what is known of the task before this turn's message; None in a first run.
    message:
        The user's message of this turn; by default the row's prompt and input_data.
    request:
        The whole request of this turn, where there is one (metadata, configuration). Wins over `message`.
    reason:
        Why the executor is called: ``first``, ``answer`` or ``rerun``.

    Example
    -------
    >>> context = TodoRequestContext(todo)
    >>> context.get_user_input(), context.input_data, context.attempt
    ('summarise this', {'pages': 3}, 1)
    """

    def __init__(
        self,
        todo: Todo,
        *,
        task: Task | None = None,
        message: Message | None = None,
        request: SendMessageRequest | None = None,
        reason: RunReason = "first",
    ) -> None:
        self._todo = todo
        self._stop = threading.Event()
        self._steering = Steering()
        task_id, context_id = ids_of(todo)
        private = _private_request(todo, message, request)
        super().__init__(
            ServerCallContext(
                user=RowUser(todo.owner_id),
                state={
                    "todo": todo,
                    "attempt": todo.attempt,
                    "input_data": todo.input_data,
                    "reason": reason,
                },
                requested_extensions=set(private.message.extensions),
            ),
            private,
            task_id=task_id,
            context_id=context_id,
            task=task,
        )

    @property
    def todolist_item(self) -> Todo:
        """The row of `todolist`, with every column."""
        return self._todo

    @property
    def input_data(self) -> Any:
        """`todolist.input_data`, exactly as it was submitted."""
        return self._todo.input_data

    @property
    def data_parts(self) -> tuple[Any, ...]:
        """The data of this turn's message as JSON: `input_data` without files, or that of the answer.

        Numbers are what they were when they were sent. In `message` they are floats, and text where a float
        cannot hold them.
        """
        return tuple(self.call_context.state.get("data_parts") or ())

    @property
    def attempt(self) -> int:
        """Number of this run: grows with every claim of the row."""
        return self._todo.attempt

    @property
    def reason(self) -> RunReason:
        """Why `execute()` is called: ``first``, ``answer`` (the user replied) or ``rerun``."""
        return self.call_context.state["reason"]

    @property
    def task_metadata(self) -> Mapping[str, Any]:
        """The task's metadata so far: whatever status updates carried, those of abandoned runs included.

        Where an executor keeps what its next run must know: publish a status update with ``metadata``.
        """
        return self.call_context.state.get("task_metadata") or {}

    def steering(self) -> AsyncIterator[SteerMessage]:
        """Messages people send to this agent while it runs (`TaskClient.steer_task`).

        Taking the iterator offers it: from then on a message is accepted, before it waits a few seconds and
        is refused. A message counts as applied when the next one is asked for, or the run ends well. The
        iterator ends with the run. Take it once, on the event loop.

        Example
        -------
        >>> async for message in context.steering():  # doctest: +SKIP
        ...     plan.revise(message.text)
        """
        return self._steering.offer()

    def attach(self, steering: Steering) -> None:
        """Say where messages come from. The runner calls this."""
        self._steering = steering

    @property
    def stop_requested(self) -> bool:
        """True when this run should end: cancelled, out of time, lease lost or worker stopping.

        Coroutines are cancelled anyway; code in threads cannot be, so it has to look here now and then.
        """
        return self._stop.is_set()

    def wait_for_stop(self, timeout: float | None = None) -> bool:
        """Block this thread until the run should end, at most `timeout` seconds; True when it should.

        A sleep that ends early: ``if context.wait_for_stop(5): return``. Never call it on the event loop.
        """
        return self._stop.wait(timeout)

    def request_stop(self) -> None:
        """Tell code in threads to end. The runner calls this; any thread may."""
        self._stop.set()

    def continue_from(self, conversation: Conversation) -> Self:
        """Give this context the message and history of a later turn; returns itself.

        For context classes whose constructor takes the row alone.
        """
        request = _private_request(self._todo, None, conversation.request)
        set_request(self, request)
        self.current_task = conversation.current_task
        self.call_context.state["reason"] = conversation.reason
        self.call_context.requested_extensions = set(request.message.extensions)
        return self

    def for_cancel(self, task: Task | None) -> Self:
        """The context `cancel()` gets: the same task and state, its current snapshot, and no message."""
        context = copy.copy(self)
        set_request(context, None)
        context.current_task = task
        return context


def session_key(context: RequestContext) -> str:
    """A key for what an agent remembers of a conversation, beyond one task: its owner and its context id.

    Never the context id alone, nor the task id: a client may choose both, and whoever uses somebody else's
    would read what was said under it.

    Example
    -------
    >>> session_key(TodoRequestContext(todo))  # doctest: +SKIP
    '5e0f.../conversation-1'
    """
    return _owned(context, context.context_id)


def thread_key(context: RequestContext) -> str:
    """A key for what an agent keeps of this task alone: its owner and its id; see `session_key`."""
    return _owned(context, context.task_id)


def _owned(context: RequestContext, id: str | None) -> str:
    # Quoted, so that no owner and id together are another owner with another id.
    return f"{quote(context.call_context.user.user_name, safe='')}/{id or ''}"


class ContextFactory(Protocol):
    """Builds the context of one run; `TodoRequestContext` itself is one."""

    def __call__(
        self,
        todo: Todo,
        /,
        *,
        task: Task | None,
        request: SendMessageRequest,
        reason: RunReason,
    ) -> RequestContext: ...


def _private_request(
    todo: Todo, message: Message | None, request: SendMessageRequest | None
) -> SendMessageRequest:
    # RequestContext writes the ids into the request it is given; nobody else's copy may change under them.
    private = SendMessageRequest()
    if request is not None:
        private.CopyFrom(request)
    elif message is not None:
        private.message.CopyFrom(message)
    else:
        private = request_of(todo)
    private.message.task_id, private.message.context_id = ids_of(todo)
    return private
