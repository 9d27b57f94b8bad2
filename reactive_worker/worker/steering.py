"""From a heartbeat that says "there are messages" to the runs they are meant for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from a2a.types import Message

from reactive_worker.columns import FlawedRow
from reactive_worker.errors import InvalidTaskError, ReactiveWorkerError
from reactive_worker.execution.numbers import parse
from reactive_worker.execution.run import TaskRun
from reactive_worker.execution.sanitise import describe
from reactive_worker.execution.steering import SteerMessage
from reactive_worker.store.store import TodoStore

logger = logging.getLogger(__name__)


class SteeringFeed:
    """Fetches messages to running agents and hands them over.

    Parameters
    ----------
    store, worker_id:
        Where they are, and for whom.
    find:
        The run of a task and attempt; None when it does not run here.
    """

    def __init__(
        self, store: TodoStore, worker_id: str, find: Callable[[str, int | None], TaskRun | None]
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._find = find
        self._wanted: set[tuple[str, int]] = set()
        self._task: asyncio.Task[None] | None = None

    def fetch(self, runs: Collection[tuple[str, int]]) -> None:
        """Look for messages to these ``(id, attempt)``, in the background."""
        self._wanted.update(runs)
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._fetch())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _fetch(self) -> None:
        while self._wanted:
            runs, self._wanted = self._wanted, set()
            try:
                rows = await self._store.read_steering(self._worker_id, runs)
            except ReactiveWorkerError as error:
                # The next heartbeat names them again.
                logger.warning("could not read messages to running tasks: %s", error)
                return
            for row in rows:
                self._hand_over(row)

    def _hand_over(self, row: Mapping[str, Any]) -> None:
        """Give one message to its run; what is wrong with it is said to its sender, and stops nobody else."""
        run = self._find(str(row["todolist_id"]), int(row["attempt"]))
        if run is None:
            return
        try:
            message = _message(row)
        except InvalidTaskError as error:
            why = f"this is no A2A message: {describe(error)}"
            logger.warning("a message to task %s is refused: %s", run.todo.id, why)
            run.refuse(str(row["id"]), why)
        else:
            run.steer([message])


def _message(row: Mapping[str, Any]) -> SteerMessage:
    """The message of a row; raises InvalidTaskError."""
    if isinstance(row, FlawedRow):
        raise InvalidTaskError(row.reason)
    return SteerMessage(
        str(row["id"]), parse(row["message"], Message()), bool(row["accepted"]), row["message"]
    )
