"""Objects of agent frameworks -> the executor that runs them, told without importing any framework."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from reactive_worker.errors import ConfigurationError, ExecutorLoadError

if TYPE_CHECKING:
    from a2a.server.agent_execution import AgentExecutor

#: ``(module, class)`` of what a framework makes, module and all below it -> our executor for it.
_KNOWN = (
    ("langgraph", "Pregel", "langgraph:LangGraphExecutor"),
    ("langgraph", "StateGraph", "langgraph:LangGraphExecutor"),
    ("crewai", "Crew", "crewai:CrewAIExecutor"),
    ("crewai", "Flow", "crewai:CrewAIExecutor"),
    # The package is called `agents`, as many a user's own module: its classes lie one deeper.
    ("agents.agent", "Agent", "openai_agents:OpenAIAgentsExecutor"),
)


def executor_of(path: str, found: Any) -> AgentExecutor | None:
    """The executor for a framework's object, or a flow's class; None where it is of no framework we know.

    Parameters
    ----------
    path:
        What names it, for errors.

    Raises
    ------
    ExecutorLoadError
        It is, and cannot be run as it is: a graph that is not compiled, a flow instead of its class.
    """
    kinds = found.__mro__ if inspect.isclass(found) else type(found).__mro__
    for module, name, executor in _KNOWN:
        if any(kind.__name__ == name and f"{kind.__module__}.".startswith(f"{module}.") for kind in kinds):
            ours, _, attribute = executor.partition(":")
            make = getattr(importlib.import_module(f"reactive_worker.executors.{ours}"), attribute)
            try:
                made: AgentExecutor = make(found)
            except ConfigurationError as error:
                raise ExecutorLoadError(f"{path} cannot be run: {error}") from error
            return made
    return None
