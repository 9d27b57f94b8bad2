"""Supabase Realtime-driven reactive worker for A2A agents.

A row in `todolist` is a task; Realtime tells a worker that it appeared, a polling sweep finds what Realtime
missed, and both are one RxPY stream of candidates that is deduplicated, prioritised, claimed and run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reactive_worker.client.monitor import Monitor
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.errors import PermanentFailure, ReactiveWorkerError, RetryLater
    from reactive_worker.execution.context import TodoRequestContext
    from reactive_worker.executors.crewai import CrewAIExecutor
    from reactive_worker.executors.function import FunctionExecutor
    from reactive_worker.executors.langgraph import LangGraphExecutor
    from reactive_worker.executors.openai_agents import OpenAIAgentsExecutor
    from reactive_worker.executors.remote_a2a import RemoteA2AExecutor
    from reactive_worker.models import Candidate, Todo, TodoEvent, TodoStatus
    from reactive_worker.settings import Settings
    from reactive_worker.worker.session import Session, open_session
    from reactive_worker.worker.telemetry import Telemetry, TelemetryEvent
    from reactive_worker.worker.worker import ReactiveWorker

#: Public name -> module. Looked up on first use: importing the package costs milliseconds, a2a and supabase
#: together more than a second, and `reactive-worker --help` needs neither.
_PUBLIC = {
    "Candidate": "models",
    "FunctionExecutor": "executors.function",
    "LangGraphExecutor": "executors.langgraph",
    "Monitor": "client.monitor",
    "CrewAIExecutor": "executors.crewai",
    "OpenAIAgentsExecutor": "executors.openai_agents",
    "PermanentFailure": "errors",
    "ReactiveWorker": "worker.worker",
    "ReactiveWorkerError": "errors",
    "RemoteA2AExecutor": "executors.remote_a2a",
    "RetryLater": "errors",
    "Session": "worker.session",
    "Settings": "settings",
    "TaskClient": "client.tasks",
    "Telemetry": "worker.telemetry",
    "TelemetryEvent": "worker.telemetry",
    "Todo": "models",
    "TodoEvent": "models",
    "TodoRequestContext": "execution.context",
    "TodoStatus": "models",
    "open_session": "worker.session",
}

__all__ = [
    "Candidate",
    "CrewAIExecutor",
    "FunctionExecutor",
    "LangGraphExecutor",
    "Monitor",
    "OpenAIAgentsExecutor",
    "PermanentFailure",
    "ReactiveWorker",
    "ReactiveWorkerError",
    "RemoteA2AExecutor",
    "RetryLater",
    "Session",
    "Settings",
    "TaskClient",
    "Telemetry",
    "TelemetryEvent",
    "Todo",
    "TodoEvent",
    "TodoRequestContext",
    "TodoStatus",
    "open_session",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
