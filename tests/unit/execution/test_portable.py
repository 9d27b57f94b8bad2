"""Our executors are ordinary ones: they run under an a2a server too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.helpers import new_data_part
from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskState,
)

from reactive_worker.executors.echo import EchoExecutor
from reactive_worker.executors.function import FunctionExecutor


async def ask(executor: AgentExecutor, text: str, data: dict[str, Any] | None = None) -> Task:
    card = AgentCard(name="test", capabilities=AgentCapabilities(streaming=True))
    handler = DefaultRequestHandler(agent_executor=executor, task_store=InMemoryTaskStore(), agent_card=card)
    parts = [Part(text=text)] + ([new_data_part(data)] if data else [])
    request = SendMessageRequest(message=Message(message_id="m", role=Role.ROLE_USER, parts=parts))
    answer = await handler.on_message_send(request, ServerCallContext())
    assert isinstance(answer, Task)
    return answer


async def shout(prompt: str) -> AsyncIterator[str]:
    for word in prompt.split():
        yield word.upper()


def shout_at_once(prompt: str) -> str:
    return prompt.upper()


def shout_in_pieces(prompt: str) -> Any:
    for word in prompt.split():
        yield word.upper()


@pytest.mark.parametrize(
    ("executor", "expected"),
    [
        (EchoExecutor(), "two words"),
        (FunctionExecutor(shout), "TWOWORDS"),
        (FunctionExecutor(shout_at_once), "TWO WORDS"),
        (FunctionExecutor(shout_in_pieces), "TWOWORDS"),
    ],
)
async def test_they_complete_under_an_a2a_server(executor: AgentExecutor, expected: str) -> None:
    task = await ask(executor, "two words")
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert "".join(part.text for part in task.artifacts[0].parts) == expected
    assert [message.message_id for message in task.history] == ["m"]


async def test_echo_reads_its_options_from_the_message_there() -> None:
    task = await ask(EchoExecutor(), "x", {"ask": "which?"})
    assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert task.status.message.parts[0].text == "which?"
