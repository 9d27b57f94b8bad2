"""A task that asks: waiting sees it parked, any answer continues it, a second one is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.helpers import get_data_parts, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import InvalidTaskError, TaskConflictError
from reactive_worker.models import TodoStatus
from reactive_worker.testing.workers import running_worker


class Ask(AgentExecutor):
    """Asks once, then repeats the answer."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task
        if task is None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
            updater = TaskUpdater(event_queue, task.id, task.context_id)
            await updater.requires_input(updater.new_agent_message([new_text_part("which one?")]))
            return
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        answer = context.get_user_input() or str(get_data_parts(context.message.parts))
        await updater.add_artifact([new_text_part(f"you said {answer}")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


@pytest.fixture
async def client(local_supabase: Any) -> AsyncIterator[TaskClient]:
    async with TaskClient.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("answer", "heard"), [("the blue one", "the blue one"), ({"colour": "blue"}, "[{'colour': 'blue'}]")]
)
async def test_an_answer_continues_the_task(
    client: TaskClient, local_supabase: Any, answer: Any, heard: str
) -> None:
    async with running_worker(local_supabase, Ask()):
        id = await client.submit_task("test", "paint it")
        parked = await client.wait_for_completion(id, timeout=30, return_when_parked=True)
        assert parked.agent_status is TodoStatus.INPUT_REQUIRED
        assert (await client.answer_task(id, answer)).agent_status is TodoStatus.PENDING
        with pytest.raises(TaskConflictError):
            await client.answer_task(id, "too late")
        todo = await client.wait_for_completion(id, timeout=30)
        events = await client.get_events(id)
    assert todo.agent_output["text"] == f"you said {heard}"
    kinds = [event.event_type for event in events]
    assert (
        kinds.index("task_input_required") < kinds.index("message_received") < kinds.index("task_completed")
    )
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("answer", ["", "  ", "a\0b", {"x": float("nan")}, object()])
async def test_an_answer_that_cannot_be_stored_is_refused_here(client: TaskClient, answer: Any) -> None:
    id = await client.submit_task("nobody", "p")
    with pytest.raises(InvalidTaskError, match="answer"):
        await client.answer_task(id, answer)
