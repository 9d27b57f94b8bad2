"""TaskClient: submit, wait, stream, cancel, retry, answer, steer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reactive_worker.client.completion import CompletionWatch
from reactive_worker.client.files import FilesClient
from reactive_worker.client.follow import follow_events
from reactive_worker.client.new_task import NewTask, plain_json, task_id, text
from reactive_worker.client.steering import SteerResult, follow_steering
from reactive_worker.errors import InvalidTaskError
from reactive_worker.models import TERMINAL_STATUSES, Todo, TodoEvent, TodoStatus
from reactive_worker.settings import Settings
from reactive_worker.store.lazy import LazyStore

if TYPE_CHECKING:
    from supabase import AsyncClient, Client

    from reactive_worker.store.connection import Connection

#: Rows in one `submit_todos` call. Larger batches gain nothing and hold their locks longer.
SUBMIT_BATCH = 500


class TaskClient(FilesClient):
    """What a program does with tasks it wants done.

    Parameters
    ----------
    supabase:
        Your own supabase client, `AsyncClient` or the synchronous `Client` (its calls then run in a thread).
        It is never closed by us. Or use `TaskClient.from_settings()`.

    Example
    -------
    >>> async def main() -> None:
    ...     async with TaskClient.from_settings() as client:
    ...         id = await client.submit_task("echo", "hello")
    ...         todo = await client.wait_for_completion(id, timeout=60)
    ...         print(todo.agent_status, todo.agent_output)
    """

    def __init__(self, supabase: AsyncClient | Client | Connection) -> None:
        self._store = LazyStore(supabase)
        self._completion = CompletionWatch()

    @classmethod
    def from_settings(cls, settings: Settings | None = None, **overrides: Any) -> Self:
        """Build a client from the environment and `.env`; it connects at the first call.

        Parameters
        ----------
        settings:
            Settings to use; by default `Settings.load(**overrides)`, for example ``url=..., key=...``.

        Raises
        ------
        ConfigurationError
            URL or key are missing or malformed.
        """
        return cls._of(LazyStore((settings or Settings.load(**overrides)).require_connection()))

    @classmethod
    def _of(cls, store: LazyStore) -> Self:
        client = cls.__new__(cls)
        client._store = store
        client._completion = CompletionWatch()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what runs in the background and close what this client opened itself."""
        await self._completion.aclose()
        await self._store.aclose()

    # -- submitting ------------------------------------------------------------------------------------------

    async def submit_task(
        self,
        agent_type: str,
        prompt: str,
        input_data: Any = None,
        *,
        priority: int = 0,
        delay: float | timedelta | None = None,
        available_at: datetime | None = None,
        idempotency_key: str | None = None,
        context_id: str | None = None,
        max_failures: int | None = None,
        timeout: int | None = None,
        id: str | None = None,
        owner_id: str | None = None,
    ) -> str:
        """Insert one task and return its id.

        Parameters
        ----------
        agent_type:
            Which workers may run it; must match theirs exactly.
        prompt:
            What the agent is asked; `get_user_input()` of its request context.
        input_data:
            Anything JSON can hold.
        priority:
            Higher runs first.
        delay, available_at:
            When it is due: seconds (or a timedelta) from now, or a moment; default: at once.
        idempotency_key:
            Submitting again with the same key returns the id of the task that is there.
        context_id:
            A2A context (conversation) it belongs to.
        max_failures:
            Runs that may fail before it is `failed`; default 3.
        timeout:
            Seconds one run may take; default: the worker's.
        id:
            Id of the row; default: made by the database. For back ends (the secret key) only.
        owner_id:
            For which user a back end submits it (`auth.users.id`): they see the task and its events, and
            files it names are judged by what they may read. A signed-in user's tasks are their own.

        Raises
        ------
        InvalidTaskError
            An argument cannot be stored; the message names it. Nothing was sent.
        SupabaseError
            Supabase refused or could not be reached.

        Example
        -------
        >>> id = await client.submit_task("echo", "hello", {"lang": "en"}, priority=5)  # doctest: +SKIP
        """
        task = NewTask(
            agent_type,
            prompt,
            input_data,
            priority,
            delay,
            available_at,
            idempotency_key,
            context_id,
            max_failures,
            timeout,
            id,
            owner_id,
        )
        store = await self._store.get()
        return (await store.submit([task.to_row()]))[0][0]

    async def submit_many(self, tasks: Iterable[NewTask | Mapping[str, Any]]) -> list[str]:
        """Insert many tasks, 500 a request, and return their ids in the same order.

        All of them are checked before the first is sent. Each request of 500 is one transaction: when a later
        one fails, the earlier ones stay; with an `idempotency_key` each, calling again is safe.

        Raises
        ------
        InvalidTaskError
            A task cannot be stored; the message says which (counting from 0) and why. Nothing was sent.
        """
        rows: list[dict[str, Any]] = []
        for index, task in enumerate(tasks):
            try:
                rows.append(NewTask.of(task).to_row())
            except InvalidTaskError as error:
                raise InvalidTaskError(f"task {index}: {error}") from None
        store = await self._store.get()
        ids: list[str] = []
        for start in range(0, len(rows), SUBMIT_BATCH):
            ids += [id for id, _ in await store.submit(rows[start : start + SUBMIT_BATCH])]
        return ids

    # -- looking ---------------------------------------------------------------------------------------------

    async def get_task(self, id: str) -> Todo:
        """Read one task. Raises TaskNotFoundError."""
        store = await self._store.get()
        return await store.get(task_id(id))

    async def list_tasks(
        self, status: TodoStatus | str | None = None, agent_type: str | None = None, limit: int = 50
    ) -> list[Todo]:
        """Newest tasks first, of one status or agent type if given. Raises InvalidTaskError."""
        if status is not None:
            try:
                status = TodoStatus(status)
            except ValueError:
                known = ", ".join(TodoStatus)
                raise InvalidTaskError(f"status must be one of {known}, not {status!r}") from None
        if limit < 1:
            raise InvalidTaskError(f"limit must be at least 1, not {limit}")
        store = await self._store.get()
        return await store.list_tasks(
            status=None if status is None else status.value, agent_type=agent_type, limit=limit
        )

    async def get_events(self, id: str, after: int = 0) -> list[TodoEvent]:
        """All events of a task stored so far with ``seq > after``, in order. Raises TaskNotFoundError."""
        store = await self._store.get()
        id = task_id(id)
        if not (events := await store.all_events(id, after)):
            await store.get(id)
        return events

    async def wait_for_completion(
        self, id: str, timeout: float | None = None, *, return_when_parked: bool = False
    ) -> Todo:
        """Wait until the task is completed, failed or cancelled, and return it.

        A failed task is returned like any other (`todo.agent_status`, `todo.error`): look at its status.
        Outages of Supabase are waited out.

        Parameters
        ----------
        timeout:
            Seconds to wait at most; None waits for as long as it takes.
        return_when_parked:
            Return also when the task waits for an answer (`input_required`), which only a person can end.

        Raises
        ------
        TimeoutError
            It has not ended yet; it goes on.
        TaskNotFoundError
            There is no such task, or it was deleted meanwhile.

        Example
        -------
        >>> todo = await client.wait_for_completion(id, timeout=60)  # doctest: +SKIP
        >>> todo.agent_output["text"]  # doctest: +SKIP
        """
        id = task_id(id)
        store = await self._store.get()
        until = TERMINAL_STATUSES | {TodoStatus.INPUT_REQUIRED} if return_when_parked else TERMINAL_STATUSES
        try:
            async with asyncio.timeout(timeout):
                await self._completion.wait(store.connection, id, until)
                return await store.get(id)
        except TimeoutError:
            if timeout is None:
                raise
            raise TimeoutError(
                f"task {id} has not ended within {timeout:g} s; it goes on: "
                "wait again, or end it with cancel_task"
            ) from None

    async def stream_events(
        self, id: str, after: int = 0, *, follow: bool = False
    ) -> AsyncIterator[TodoEvent]:
        """Yield the task's events with ``seq > after``: what is stored, then live, each exactly once.

        Parameters
        ----------
        after:
            `seq` of the last event you have seen; 0 for all. Pass it to resume after a restart.
        follow:
            Go on after the terminal event (a retry reopens the task) until you stop.

        Raises
        ------
        TaskNotFoundError
            There is no such task, or it was deleted meanwhile.

        Example
        -------
        >>> async for event in client.stream_events(id):  # doctest: +SKIP
        ...     print(event.seq, event.event_type, event.message)
        """
        if after < 0:
            raise InvalidTaskError(f"after must be 0 or a seq, not {after}")
        store = await self._store.get()
        async with aclosing(follow_events(store, task_id(id), after=after, follow=follow)) as events:
            async for event in events:
                yield event

    # -- steering --------------------------------------------------------------------------------------------

    async def cancel_task(self, id: str, reason: str | None = None) -> Todo:
        """Cancel a task: a waiting or parked one at once, a running one as soon as its executor ends.

        Repeating it changes nothing. Raises TaskNotFoundError, and TaskConflictError when it has ended.
        """
        store = await self._store.get()
        return await store.cancel(task_id(id), None if reason is None else text("reason", reason))

    async def retry_task(self, id: str) -> Todo:
        """Put a failed or cancelled task back to pending, its retry budget full again.

        Raises TaskNotFoundError, and TaskConflictError in any other state.
        """
        store = await self._store.get()
        return await store.retry(task_id(id))

    async def answer_task(self, id: str, answer: Any) -> Todo:
        """Answer a task that waits for input: it becomes pending and continues with your answer.

        Parameters
        ----------
        answer:
            Text, or anything else JSON can hold (sent as an A2A data part).

        Raises
        ------
        TaskConflictError
            The task is not waiting for an answer (somebody else may have given one).
        InvalidTaskError
            The answer cannot be stored.
        """
        message = _user_message("answer", answer)
        store = await self._store.get()
        return await store.answer(task_id(id), message)

    async def steer_task(self, id: str, message: Any, *, wait: float = 0.0) -> SteerResult:
        """Say something to an agent while it runs.

        The message is stored and reaches the executor at once, or with the worker's next heartbeat. An agent
        that listens accepts it and says when it is applied; one that does not refuses it after a few
        seconds. A message that was not applied when a run is lost is for the next run.

        Parameters
        ----------
        message:
            Text, or anything else JSON can hold (sent as an A2A data part).
        wait:
            Seconds to wait for it to be applied or refused; 0 returns as soon as it is stored.

        Returns
        -------
        SteerResult
            How far it has come: `state` is ``sent``, ``accepted``, ``applied`` or ``refused``, `reason` says
            why it was refused.

        Raises
        ------
        TaskNotFoundError
            There is no such task.
        TaskConflictError
            The task is not running: submit it, answer it or retry it instead.
        InvalidTaskError
            The message cannot be stored.

        Example
        -------
        >>> result = await client.steer_task(id, "keep it short", wait=10)  # doctest: +SKIP
        >>> result.state  # doctest: +SKIP
        'applied'
        """
        sent = _user_message("message", message)
        store = await self._store.get()
        id = task_id(id)
        after = await store.steer(id, sent)
        result = SteerResult(sent["messageId"], "sent")
        if wait <= 0:
            return result
        return await follow_steering(store, id, result, after=after, timeout=wait)


def _user_message(name: str, content: Any) -> dict[str, Any]:
    """An A2A message of text, or of anything else JSON can hold; raises InvalidTaskError naming `name`."""
    part = (
        {"text": text(name, content, blank=False)}
        if isinstance(content, str)
        else {"data": plain_json(name, content)}
    )
    return {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [part]}
