"""What a run of a framework's executor said, and one that is cancelled in the middle."""

from __future__ import annotations

from a2a.server.agent_execution import AgentExecutor

from reactive_worker.models import EventType
from reactive_worker.testing.workers import eventually
from tests.integration.frameworks.openai_server import ScriptedModel, Stall, reached
from tests.unit.execution.fakes import Ran, make_runner, make_todo


def artifacts(ran: Ran) -> list[str]:
    """Texts of the artifact events, in order."""
    return [
        event.event_data["artifactUpdate"]["artifact"]["parts"][0]["text"]
        for event in ran.events
        if event.event_type == EventType.ARTIFACT
    ]


def said(ran: Ran) -> list[str]:
    """Texts of the progress events, in order."""
    return [
        event.event_data["statusUpdate"]["status"]["message"]["parts"][0]["text"]
        for event in ran.events
        if event.event_type == EventType.PROGRESS
    ]


async def cancelled_in_the_middle(executor: AgentExecutor, model: ScriptedModel) -> Ran:
    """A run cancelled once the model's first token is an event; the model must have been hung up on."""
    stall, ran = Stall(), Ran()
    model.script(stall)
    task_run = make_runner(executor).start(make_todo(), ran.events.append)
    await eventually(lambda: artifacts(ran))
    task_run.cancel()
    await task_run.wait()
    await reached(stall.abandoned)
    return ran
