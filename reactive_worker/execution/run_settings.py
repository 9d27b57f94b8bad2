"""What all runs of a worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from a2a.server.agent_execution import AgentExecutor
from a2a.types import SendMessageRequest

from reactive_worker.execution.context import ContextFactory
from reactive_worker.execution.history import LoadEvents
from reactive_worker.execution.turn import Limits
from reactive_worker.models import Todo

#: Why a run is stopped. The first two end it with an outcome, the others without a word.
Stop: TypeAlias = Literal["cancel", "timeout", "lost", "released"]
SILENT: Collection[Stop] = ("lost", "released")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What all runs of a worker share; see `Runner` for the meaning."""

    executor_for: Callable[[str], AgentExecutor]
    load_events: LoadEvents
    #: Gives the files of a request that lie in Storage a url each.
    sign: Callable[[Todo, SendMessageRequest], Awaitable[None]] | None
    context_factory: ContextFactory
    backoff: Callable[[int], float]
    default_timeout: float | None
    cancel_grace: float
    gate: Callable[[], Awaitable[None]] | None
    clock: Callable[[], datetime]
    limits: Limits
    auth_hold: float
    #: Takes over a task that would not end: keeps it alive and accounted for.
    abandon: Callable[[asyncio.Task[Any], str], None]
    #: An executor of this agent type published updates without a Task before them.
    note_implicit_task: Callable[[str], None]
