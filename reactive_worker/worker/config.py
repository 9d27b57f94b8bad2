"""What a worker was asked to be: fixed for its life."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from a2a.server.agent_execution import AgentExecutor
from reactivex import Observable

from reactive_worker import streams
from reactive_worker.errors import ConfigurationError
from reactive_worker.execution.context import ContextFactory
from reactive_worker.models import Candidate, TodoEvent
from reactive_worker.settings import Settings, SettingsOptions

CandidatesHook = Callable[[Observable[Candidate]], Observable[Candidate]]
EventsHook = Callable[[Observable[TodoEvent]], Observable[TodoEvent]]

#: PostgreSQL cannot filter a subscription by more values than this.
MOST_AGENT_TYPES = 100


class WorkerOptions(SettingsOptions, total=False):
    """What `ReactiveWorker` takes by name beside its executors and hooks: every setting, and these."""

    per_type: Mapping[str, int] | None
    priority_key: streams.PriorityKey | None
    order: streams.Order | None
    context_factory: ContextFactory | None
    handle_signals: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session is in the table `workers`, and what it serves."""

    settings: Settings
    agent_types: tuple[str, ...]
    #: New for each process.
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def name(self) -> str:
        """What `workers list` shows; host name and pid unless the settings say otherwise."""
        return self.settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What flows through a worker, and how."""

    executors: Mapping[str, AgentExecutor]
    per_type: Mapping[str, int] = field(default_factory=dict[str, int])
    candidates: CandidatesHook | None = None
    events: EventsHook | None = None
    priority_key: streams.PriorityKey | None = None
    order: streams.Order | None = None
    context_factory: ContextFactory | None = None

    @property
    def fair_by(self) -> str | None:
        """What sweeps take turns by: a fair order can only be as fair as what a sweep shows it."""
        return self.order.sweep_by if isinstance(self.order, streams.FairOrder) else None


def checked_types(agent_types: Iterable[str]) -> tuple[str, ...]:
    """Agent types in order, each once.

    Raises
    ------
    ConfigurationError
        There are none, too many, or one has no or too many characters.
    """
    types = sorted({agent_types} if isinstance(agent_types, str) else set(agent_types))
    if not types:
        raise ConfigurationError("which rows shall this worker run? Name at least one agent type")
    if len(types) > MOST_AGENT_TYPES:
        raise ConfigurationError(
            f"one worker serves at most {MOST_AGENT_TYPES} agent types, not {len(types)}"
        )
    for name in types:
        if not name or len(name) > 100:
            raise ConfigurationError(f"an agent type has 1 to 100 characters, not {name!r}")
    return tuple(types)


def checked_executors(
    executor: AgentExecutor | None, agent_type: str, executors: Mapping[str, AgentExecutor] | None
) -> dict[str, AgentExecutor]:
    """Executors by agent type.

    Raises
    ------
    ConfigurationError
        There are none, or something else stands in their place.
    """
    chosen = dict(executors or {})
    if executor is not None:
        if not agent_type:
            raise ConfigurationError(
                "which rows shall this worker run? Pass agent_type= (or set DEFAULT_AGENT_TYPE)"
            )
        chosen[agent_type] = executor
    if not chosen:
        raise ConfigurationError(
            "a worker needs an executor: ReactiveWorker(MyExecutor(), agent_type='mine')"
        )
    for name, value in chosen.items():
        if not isinstance(value, AgentExecutor):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ConfigurationError(
                f"the executor for {name!r} is no a2a AgentExecutor but {type(value).__name__}; "
                "wrap a function in reactive_worker.executors.function.FunctionExecutor"
            )
    checked_types(chosen)
    return chosen
