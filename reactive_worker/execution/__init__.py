"""One task, in A2A terms: request context, event queue, fold, runner."""

from __future__ import annotations

from reactive_worker.execution.context import ContextFactory, TodoRequestContext, session_key
from reactive_worker.execution.conversation import Conversation, fold_events, read_log
from reactive_worker.execution.event_queue import TodoEventQueue
from reactive_worker.execution.fold import Fold
from reactive_worker.execution.run import TaskRun
from reactive_worker.execution.runner import Runner, to_observable
from reactive_worker.execution.turn import Limits

__all__ = [
    "ContextFactory",
    "Conversation",
    "Fold",
    "Limits",
    "Runner",
    "TaskRun",
    "TodoEventQueue",
    "TodoRequestContext",
    "fold_events",
    "read_log",
    "session_key",
    "to_observable",
]
