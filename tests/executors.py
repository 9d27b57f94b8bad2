"""Executors for tests, importable by worker processes as `tests.executors:NAME`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater


class Echo(AgentExecutor):
    """Answers with the prompt; `input_data` may slow it down or make it fail.

    ``sleep`` awaits, ``stubborn`` awaits and swallows every cancellation, ``block`` blocks the event loop,
    ``fail`` raises, ``exit`` ends the process: each once the first half of the artifact was said. ``quiet``
    completes without saying anything.
    """

    def __init__(self, seen: Callable[[RequestContext], None] | None = None) -> None:
        self._seen = seen

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        if self._seen is not None:
            self._seen(context)
        given = context.call_context.state["input_data"]
        data: dict[str, Any] = given if isinstance(given, dict) else {}
        task = context.current_task
        if task is None:
            assert context.message is not None
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if "quiet" in data:
            await updater.complete()
            return
        text = context.get_user_input()
        half = len(text) // 2
        await updater.add_artifact([new_text_part(text[:half])], artifact_id="answer")
        if "sleep" in data:
            await asyncio.sleep(data["sleep"])
        if "stubborn" in data:
            await _stubborn(data["stubborn"])
        if "block" in data:
            time.sleep(data["block"])
        if "fail" in data:
            raise RuntimeError(data["fail"])
        if "exit" in data:
            os._exit(data["exit"])
        await updater.add_artifact([new_text_part(text[half:])], artifact_id="answer", append=True)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


async def _stubborn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


echo = Echo()
