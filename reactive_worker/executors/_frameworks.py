"""What the executors of frameworks have in common: a text that grows, progress, questions, clear errors."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from a2a.helpers import get_data_parts, new_text_part
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import Message, Task, TaskState, TaskStatus

from reactive_worker.errors import ConfigurationError
from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.numbers import marked, revealed, spelled
from reactive_worker.execution.sanitise import shorten
from reactive_worker.execution.wire import data_part

#: Characters of a tool's arguments or result that a progress message shows.
SHOWN = 500


def require(module: str, extra: str) -> Any:
    """Import a framework's module.

    Raises
    ------
    ConfigurationError
        It is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        _not_installed(root, extra, error)


def _not_installed(root: str, extra: str, error: ModuleNotFoundError) -> NoReturn:
    raise ConfigurationError(
        f"the package {root!r} is not installed: pip install 'reactive-worker[{extra}]'"
    ) from error


class Output:
    """Publishes what a framework says about one task.

    Parameters
    ----------
    context, queue:
        What `execute()` was called with.
    """

    def __init__(self, context: RequestContext, queue: EventQueue) -> None:
        self.updater = TaskUpdater(queue, context.task_id or "", context.context_id or "")
        #: Artifact id -> its text so far.
        self.texts: dict[str, str] = {}
        self._context = context
        self._queue = queue
        self._exact = isinstance(queue, TodoEventQueue)

    async def begin(self) -> None:
        """Say that the task exists: our worker knows, a plain a2a server wants to hear it first."""
        context = self._context
        if context.current_task is None and context.message is not None:
            await self._queue.enqueue_event(
                Task(
                    id=context.task_id or "",
                    context_id=context.context_id or "",
                    status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                    history=[context.message],
                )
            )

    async def token(self, artifact: str, text: str, *, new: bool = False) -> None:
        """Append to an artifact's text; `new` begins it again, in place of what it had."""
        if not text:
            return
        append = artifact in self.texts and not new
        self.texts[artifact] = self.texts[artifact] + text if append else text
        await self.updater.add_artifact(
            [new_text_part(text)], artifact_id=artifact, name=artifact, append=append
        )

    async def whole(self, artifact: str, value: Any) -> None:
        """Make an artifact be this text or JSON value, unless its streamed text is that already."""
        if isinstance(value, str):
            if value and self.texts.get(artifact) != value:
                await self.token(artifact, value, new=True)
            return
        part = data_part(value, exact=self._exact)
        await self.updater.add_artifact([part], artifact_id=artifact, name=artifact)

    async def progress(self, text: str, metadata: dict[str, Any] | None = None) -> None:
        """A line about what is going on."""
        message = self.updater.new_agent_message([new_text_part(text)])
        await self._status(TaskState.TASK_STATE_WORKING, message, metadata)

    async def ask(self, text: str, data: Any = None, metadata: dict[str, Any] | None = None) -> None:
        """Ask a person; `execute()` should return after it."""
        parts = [new_text_part(text)]
        if data is not None:
            parts.append(data_part(data, exact=self._exact))
        message = self.updater.new_agent_message(parts)
        await self._status(TaskState.TASK_STATE_INPUT_REQUIRED, message, metadata)

    async def _status(self, state: TaskState, message: Message, metadata: dict[str, Any] | None) -> None:
        if metadata is not None:
            metadata = marked(metadata) if self._exact else spelled(metadata)
        await self.updater.update_status(state, message, metadata=metadata)


def is_answer(context: RequestContext) -> bool:
    """True when this run's message answers a question, also when an earlier run of the answer was lost."""
    task = context.current_task
    return task is not None and task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED


def answer_of(context: RequestContext) -> Any:
    """The answer: its data part if it has one, numbers as they were sent; else its text."""
    data: Sequence[Any] | None = context.call_context.state.get("data_parts")
    if data is None:
        # Served by a plain a2a server: all there is, is the message.
        data = revealed(get_data_parts(context.message.parts)) if context.message is not None else []
    return data[0] if data else context.get_user_input()


def shown(value: Any) -> str:
    """A tool's arguments or result, for people: one short line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shorten(" ".join(text.split()), SHOWN)
