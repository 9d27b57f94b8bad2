"""What a worker was asked to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from a2a.server.agent_execution import AgentExecutor

from reactive_worker import streams
from reactive_worker.models import Candidate
from reactive_worker.settings import Settings
from reactive_worker.worker.pipeline import CandidatesHook, EventsHook


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything a session is made from; fixed for its life."""

    id: str
    name: str
    settings: Settings
    executors: Mapping[str, AgentExecutor]
    per_type: Mapping[str, int]
    candidates: CandidatesHook | None
    events: EventsHook | None
    priority_key: Callable[[Candidate], Any] | None
    order: streams.Order | None
    context_factory: Callable[..., Any] | None
