"""`run`: a worker process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import (
    Commands,
    add_command,
    add_connection,
    add_settings,
    given_settings,
)
from reactive_worker.errors import ConfigurationError, ReactiveWorkerError

if TYPE_CHECKING:
    from reactive_worker.models import TodoEvent
    from reactive_worker.settings import Settings

logger = logging.getLogger("reactive_worker.run")

_DESCRIPTION = """\
Run a worker: it claims pending tasks of its agent types and runs EXECUTOR for
each.

EXECUTOR is package.module:attribute, looked up from the current directory: a
function of a prompt; a graph of LangGraph, a crew or flow of CrewAI, an agent
of OpenAI's Agents SDK; an a2a AgentExecutor, class or instance; or a function
without parameters that makes one of these.
"""

_EPILOG = """\
SIGTERM or Ctrl-C: no new tasks, running ones get --drain-timeout, the rest is
handed back unharmed. A second signal ends at once. Exit code 0 after SIGTERM or
a drain from outside, 130 after Ctrl-C.
"""


#: How a run ended, in words. Whether a failed run is tried again is the database's decision.
_ENDS = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "input_required": "waits for an answer",
    "retry": "run failed",
}


def add(commands: Commands) -> None:
    """Register the command."""
    run = add_command(
        commands, "run", _run, "run a worker with your executor", description=_DESCRIPTION, epilog=_EPILOG
    )
    run.add_argument("path", metavar="EXECUTOR", nargs="?", help="module:attribute, for --agent-type")
    run.add_argument(
        "--executor",
        action="append",
        default=[],
        metavar="[TYPE=]EXECUTOR",
        dest="executors",
        help="one more executor with an agent type of its own; repeatable",
    )
    run.add_argument("--log-format", choices=("text", "json"), help="of the log lines; --json means json")
    run.add_argument("--reload", action="store_true", help="start again when a file of yours changes")
    add_settings(run)
    add_connection(run)


def _run(args: argparse.Namespace, console: Console) -> int:
    if args.reload:
        from reactive_worker.cli.reload import run_reloading

        return run_reloading(args.argv, console)
    from reactive_worker.access.logs import configure
    from reactive_worker.cli.load import load_executor
    from reactive_worker.execution.processes import LAST_WAIT, end_process_within

    settings = _settings(args)
    configure(settings.log_level, args.log_format or ("json" if console.json else "text"))
    executors = {agent_type: load_executor(path) for agent_type, path in _paths(args, settings).items()}
    settings.worker_credentials()
    from reactive_worker.worker.worker import ReactiveWorker

    class Worker(ReactiveWorker):
        """Remembers which signal ended it: Ctrl-C and SIGTERM have different exit codes."""

        interrupted = False

        def _on_signal(self, number: int) -> None:
            self.interrupted = self.interrupted or number == signal.SIGINT
            super()._on_signal(number)

    async def main() -> int:
        worker = Worker(executors=executors, settings=settings)
        worker.events.subscribe(on_next=_log_end)
        code = 1
        try:
            await worker.run()
            code = 130 if worker.interrupted else 0
        except ReactiveWorkerError as error:
            code = error.exit_code
            raise
        finally:
            if args.owns_process:
                # Everything is stored: what executors have left behind keeps nobody waiting.
                end_process_within(LAST_WAIT, code)
        return code

    return asyncio.run(main())


def _log_end(event: TodoEvent) -> None:
    """One line for each run that has ended: what a person following the log looks for."""
    outcome = event.outcome
    if outcome is None or (outcome.error or {}).get("traceback"):
        return  # an exception has its line already, with file and line
    extra = {"todolist_id": event.todolist_id, "attempt": event.attempt, "outcome": outcome.kind}
    well = outcome.kind in ("completed", "input_required")
    logger.log(
        logging.INFO if well else logging.WARNING,
        "task %s: %s%s",
        event.todolist_id,
        _ENDS[outcome.kind],
        f", {outcome.error.get('type')}: {outcome.error.get('message')}" if outcome.error else "",
        extra=extra,
    )


def _settings(args: argparse.Namespace) -> Settings:
    from reactive_worker.settings import Settings

    return Settings.load(
        args.env_file, url=args.url, log_level=getattr(args, "log_level", None), **given_settings(args)
    )


def _paths(args: argparse.Namespace, settings: Settings) -> dict[str, str]:
    """Executor paths by agent type; raises ConfigurationError when one is missing or named twice."""
    pairs: list[tuple[str, str]] = []
    for entry in ([args.path] if args.path else []) + list(args.executors):
        agent_type, equals, path = str(entry).rpartition("=")
        pairs.append((agent_type if equals else settings.agent_type, path))
    if not pairs:
        raise ConfigurationError("no executor: reactive-worker run mymodule:MyExecutor --agent-type mine")
    paths: dict[str, str] = {}
    for agent_type, path in pairs:
        if not agent_type:
            raise ConfigurationError(
                f"no agent type for {path}: give --agent-type, TYPE=EXECUTOR, or set DEFAULT_AGENT_TYPE"
            )
        if agent_type in paths:
            raise ConfigurationError(f"two executors for agent type {agent_type!r}")
        paths[agent_type] = path
    return paths
