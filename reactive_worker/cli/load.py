"""``module:attr`` on the command line -> an a2a AgentExecutor."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.frameworks import executor_of
from reactive_worker.errors import ExecutorLoadError

if TYPE_CHECKING:
    from a2a.server.agent_execution import AgentExecutor


def load_executor(path: str) -> AgentExecutor:
    """Import `path` and make an executor of it.

    Parameters
    ----------
    path:
        ``package.module:attr``, looked up from the current directory first. The attribute may be an
        AgentExecutor class (constructed without arguments), an instance, what a framework makes (a graph, a
        crew, an agent), a factory (a function without parameters returning one of these), or any other
        function: it becomes a FunctionExecutor.

    Raises
    ------
    ExecutorLoadError
        It does not import, or is none of these; the message says where it failed.
    """
    found = _find(path)
    from a2a.server.agent_execution import AgentExecutor

    if isinstance(found, AgentExecutor):
        return found
    if (made := executor_of(path, found)) is not None:
        return made
    if inspect.isclass(found):
        if not issubclass(found, AgentExecutor):
            raise ExecutorLoadError(f"{path} is a class, but no a2a AgentExecutor")
        return _made(path, found)
    if inspect.isroutine(found) and _is_factory(found):
        return _made(path, found)
    if callable(found):
        from reactive_worker.executors.function import FunctionExecutor

        try:
            return FunctionExecutor(found)
        except TypeError as error:
            raise ExecutorLoadError(f"{path} cannot be an executor: {error}") from error
    raise ExecutorLoadError(
        f"{path} is a {type(found).__name__}, neither an a2a AgentExecutor nor a function"
    )


def _find(path: str) -> Any:
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ExecutorLoadError(f"{path!r} names no executor; expected package.module:attribute")
    # As uvicorn and gunicorn do: the user's module lies in the folder the command runs in.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ExecutorLoadError(f"no module named {error.name!r} here ({here}) or installed") from error
        raise ExecutorLoadError(f"{module_name} cannot be imported: {error}") from error
    except Exception as error:
        # Whatever the user's module does while it is imported is one line too.
        raise ExecutorLoadError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ExecutorLoadError(f"module {module_name} has no {attribute!r}") from None
    return found


def _is_factory(function: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return False
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _made(path: str, make: Callable[[], Any]) -> AgentExecutor:
    from a2a.server.agent_execution import AgentExecutor

    try:
        made = make()
    except Exception as error:
        raise ExecutorLoadError(f"{path}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, AgentExecutor) and (wrapped := executor_of(f"{path}()", made)) is not None:
        return wrapped
    if not isinstance(made, AgentExecutor):
        raise ExecutorLoadError(f"{path}() returned a {type(made).__name__}, no a2a AgentExecutor")
    return made
