"""The names of the ProcessGPT agent SDK over our parts: programs written for it run with new import lines.

```python
from reactive_worker.processgpt import ProcessGPTAgentServer, ProcessGPTClient

server = ProcessGPTAgentServer(agent_executor=MyExecutor(), agent_type="my-agent")
asyncio.run(server.run())
```
"""

from __future__ import annotations

from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.types import SendMessageRequest, Task

from reactive_worker.client.monitor import Monitor
from reactive_worker.client.tasks import TaskClient
from reactive_worker.execution.context import ContextFactory, TodoRequestContext
from reactive_worker.execution.conversation import Conversation, RunReason, ids_of
from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.fold import Fold
from reactive_worker.models import Todo
from reactive_worker.settings import Settings
from reactive_worker.worker.worker import ReactiveWorker

__all__ = [
    "ProcessGPTAgentServer",
    "ProcessGPTClient",
    "ProcessGPTEventQueue",
    "ProcessGPTMonitor",
    "ProcessGPTRequestContext",
    "TodoListItem",
]

#: A row of `todolist`.
TodoListItem = Todo
#: Stores what an executor says in `events`.
ProcessGPTEventQueue = TodoEventQueue


class ProcessGPTRequestContext(TodoRequestContext):
    """An a2a RequestContext made from a `todolist` row: subclass it and read `self.todolist_item`.

    Pass the subclass to ``ProcessGPTAgentServer(context_class=...)``, or make one inside an executor:
    ``MyContext(context.todolist_item)``.
    """


class ProcessGPTClient(TaskClient):
    """`ProcessGPTClient(supabase)`: submit tasks and wait for them."""


class ProcessGPTMonitor(Monitor):
    """`ProcessGPTMonitor(supabase)`: statistics and recent events."""


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
        Your subclass of `ProcessGPTRequestContext`.
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
            context_factory=None if context_class is None else _factory(context_class),
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
