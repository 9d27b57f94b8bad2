"""The names of the ProcessGPT agent SDK over our parts: programs written for it run with new import lines.

```python
from reactive_worker.processgpt import ProcessGPTAgentServer, ProcessGPTClient

server = ProcessGPTAgentServer(agent_executor=MyExecutor(), agent_type="my-agent")
asyncio.run(server.run())
```
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from dataclasses import fields
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.types import SendMessageRequest, Task

from reactive_worker.client.monitor import Monitor
from reactive_worker.client.tasks import TaskClient
from reactive_worker.columns import as_row
from reactive_worker.execution.context import ContextFactory, TodoRequestContext
from reactive_worker.execution.conversation import Conversation, RunReason, ids_of
from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.fold import Fold
from reactive_worker.models import Todo, TodoEvent, TodoStatus
from reactive_worker.settings import Settings
from reactive_worker.worker.worker import ReactiveWorker

__all__ = [
    "ProcessGPTAgentServer",
    "ProcessGPTClient",
    "ProcessGPTEvent",
    "ProcessGPTEventQueue",
    "ProcessGPTMonitor",
    "ProcessGPTRequestContext",
    "TodoListItem",
]


class _Indexed:
    """Reads like the mapping of a row's columns to JSON values: `row["created_at"]` beside `row.created_at`.

    Programs of the predecessor index rows like dictionaries, as PostgREST gives them.
    """

    __slots__ = ()

    def _columns(self) -> dict[str, Any]:
        raise NotImplementedError

    def keys(self) -> KeysView[str]:
        """Column names, ours first, then the user's own."""
        return self._columns().keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Any:
        return self._columns()[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The column's value, or `default` when there is no such column."""
        return self._columns().get(name, default)


class TodoListItem(_Indexed, Todo):
    """A row of `todolist`: typed attributes, and its columns as items.

    Example
    -------
    >>> item["agent_output"]["text"], item.agent_output["text"]  # doctest: +SKIP
    ('done', 'done')
    """

    __slots__ = ()

    @classmethod
    def of(cls, todo: Todo) -> TodoListItem:
        """The same row, indexed like a dictionary."""
        return todo if isinstance(todo, TodoListItem) else cls(**_values(todo))

    def _columns(self) -> dict[str, Any]:
        return as_row(self)


class ProcessGPTEvent(_Indexed, TodoEvent):
    """A row of `events`: typed attributes, and its columns as items."""

    __slots__ = ()

    @classmethod
    def of(cls, event: TodoEvent) -> ProcessGPTEvent:
        """The same row, indexed like a dictionary."""
        return cls(**_values(event))

    def _columns(self) -> dict[str, Any]:
        return as_row(self)


def _values(row: Todo | TodoEvent) -> dict[str, Any]:
    return {spec.name: getattr(row, spec.name) for spec in fields(row)}


#: Stores what an executor says in `events`.
ProcessGPTEventQueue = TodoEventQueue


class ProcessGPTRequestContext(TodoRequestContext):
    """An a2a RequestContext made from a `todolist` row: subclass it and read `self.todolist_item`.

    Pass the subclass to ``ProcessGPTAgentServer(context_class=...)``, or make one inside an executor:
    ``MyContext(context.todolist_item)``.
    """

    @property
    def todolist_item(self) -> TodoListItem:
        """The row of `todolist`, with every column."""
        return TodoListItem.of(super().todolist_item)


class ProcessGPTClient(TaskClient):
    """`ProcessGPTClient(supabase)`: `TaskClient`, whose rows are indexed like dictionaries, too."""

    async def get_task(self, id: str) -> TodoListItem:
        """See `TaskClient.get_task`."""
        return TodoListItem.of(await super().get_task(id))

    async def list_tasks(
        self, status: TodoStatus | str | None = None, agent_type: str | None = None, limit: int = 50
    ) -> list[Todo]:
        """See `TaskClient.list_tasks`; each is a `TodoListItem`."""
        return [TodoListItem.of(todo) for todo in await super().list_tasks(status, agent_type, limit)]

    async def get_events(self, id: str, after: int = 0) -> list[TodoEvent]:
        """See `TaskClient.get_events`; each is a `ProcessGPTEvent`."""
        return [ProcessGPTEvent.of(event) for event in await super().get_events(id, after)]

    async def wait_for_completion(
        self, id: str, timeout: float | None = None, *, return_when_parked: bool = False
    ) -> TodoListItem:
        """See `TaskClient.wait_for_completion`."""
        return TodoListItem.of(
            await super().wait_for_completion(id, timeout, return_when_parked=return_when_parked)
        )


class ProcessGPTMonitor(Monitor):
    """`ProcessGPTMonitor(supabase)`: `Monitor`, whose events are indexed like dictionaries, too."""

    async def get_recent_events(self, limit: int = 10) -> list[TodoEvent]:
        """See `Monitor.get_recent_events`; each is a `ProcessGPTEvent`."""
        return [ProcessGPTEvent.of(event) for event in await super().get_recent_events(limit)]


class ProcessGPTAgentServer:
    """Runs one executor on the rows of one agent type.

    Parameters
    ----------
    agent_executor:
        Any a2a AgentExecutor.
    agent_type:
        Which rows; DEFAULT_AGENT_TYPE when not given.
    polling_interval:
        Seconds between polls while Realtime is not proven to work; DEFAULT_POLLING_INTERVAL (5) by default.
    context_class:
        Your subclass of `ProcessGPTRequestContext`; by default that itself.
    **options:
        Anything else `ReactiveWorker` takes.

    Raises
    ------
    ConfigurationError
        The executor is none, or the agent type is missing.
    """

    def __init__(
        self,
        agent_executor: AgentExecutor,
        agent_type: str | None = None,
        polling_interval: float | None = None,
        *,
        context_class: type[ProcessGPTRequestContext] | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        self.worker = ReactiveWorker(
            agent_executor,
            agent_type=agent_type,
            settings=settings,
            polling_interval=polling_interval,
            context_factory=_factory(context_class or ProcessGPTRequestContext),
            **options,
        )
        self.agent_type = agent_type or self.worker.settings.agent_type

    async def run(self) -> None:
        """Work until `stop` is called or SIGINT or SIGTERM comes."""
        await self.worker.run()

    def stop(self) -> None:
        """Claim nothing more, let running tasks finish, end."""
        self.worker.stop()


def _factory(context_class: type[ProcessGPTRequestContext]) -> ContextFactory:
    """Subclasses take the row alone; what this turn adds to it is given to them afterwards."""

    def make(
        todo: Todo, /, *, task: Task | None, request: SendMessageRequest, reason: RunReason
    ) -> RequestContext:
        task_id, context_id = ids_of(todo)
        return context_class(todo).continue_from(
            Conversation(
                fold=Fold(task_id, context_id, request.message),
                request=request,
                current_task=task,
                reason=reason,
                answers=0,
            )
        )

    return make
