"""An executor that says back what it was told: for demos, tests and first steps."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from a2a.helpers import get_data_parts, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import Task, TaskState, TaskStatus

from reactive_worker.errors import PermanentFailure
from reactive_worker.execution.numbers import revealed

#: Chunks the prompt is streamed in, at most.
CHUNKS = 4


class EchoExecutor(AgentExecutor):
    """Streams the prompt back as an artifact named ``echo``, in a few chunks.

    `input_data` steers it:

    ``{"delay": 0.05}``
        Wait so many seconds before each chunk.
    ``{"fail": "text"}``
        Raise RuntimeError with this text after the chunks: one failure, tried again while the budget lasts.
        With ``"fail_attempts": 2`` only the first two attempts fail; with ``"permanent": true`` it is final.
    ``{"ask": "question"}``
        Ask this first and wait for an answer; then echo the answer.

    Example
    -------
    >>> worker = ReactiveWorker(EchoExecutor(), agent_type="echo")  # doctest: +SKIP
    """

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Echo the message of this turn."""
        task = context.current_task
        if task is None:
            task = Task(
                id=context.task_id or "",
                context_id=context.context_id or "",
                status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                history=[context.message] if context.message is not None else [],
            )
            await event_queue.enqueue_event(task)
        options = _options(context)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        answered = task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        if options.get("ask") and not answered:
            await updater.requires_input(new_text_message(str(options["ask"])))
            return
        delay = float(options.get("delay") or 0)
        for number, chunk in enumerate(split(context.get_user_input())):
            if delay > 0:
                await asyncio.sleep(delay)
            await updater.add_artifact(
                [new_text_part(chunk)], artifact_id="echo", name="echo", append=number > 0
            )
        self._fail_if_told(options, context)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that the task is cancelled."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    def _fail_if_told(self, options: dict[str, Any], context: RequestContext) -> None:
        if not options.get("fail"):
            return
        attempt = int(context.call_context.state.get("attempt", 1))
        if attempt > int(options.get("fail_attempts", attempt)):
            return
        if options.get("permanent"):
            raise PermanentFailure(str(options["fail"]))
        raise RuntimeError(str(options["fail"]))


def split(text: str, chunks: int = CHUNKS) -> list[str]:
    """Cut a text into at most `chunks` pieces of whole words; together they are the text."""
    words = text.split(" ")
    size = max(1, -(-len(words) // chunks))
    pieces = [" ".join(words[start : start + size]) for start in range(0, len(words), size)]
    return [piece + " " for piece in pieces[:-1]] + pieces[-1:]


def _options(context: RequestContext) -> dict[str, Any]:
    data = context.call_context.state.get("input_data")
    if data is None and context.message is not None:
        # Served by a plain a2a server: the options come in the message.
        data = revealed(next(iter(get_data_parts(context.message.parts)), None))
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}
