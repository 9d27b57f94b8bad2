"""From a heartbeat that says "there are messages" to the runs they are meant for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from a2a.types import Message

from reactive_worker.columns import FlawedRow
from reactive_worker.errors import InvalidTaskError, ReactiveWorkerError
from reactive_worker.execution.numbers import parse
from reactive_worker.execution.run import TaskRun
from reactive_worker.execution.sanitise import describe
from reactive_worker.execution.steering import SteerMessage
from reactive_worker.store.duty import Duty
from reactive_worker.store.heartbeat import RunKey
from reactive_worker.store.store import TodoStore
from reactive_worker.worker.telemetry import MessageRefused, SteeringUnread, Telemetry


class SteeringFeed(Duty):
    """Fetches messages to running agents and hands them over.

    Parameters
    ----------
    store, worker_id:
        Where they are, and for whom.
    find:
        The run of a task and attempt; None when it does not run here.
    telemetry:
        Told of what could not be read.
    """

    def __init__(
        self,
        store: TodoStore,
        worker_id: str,
        find: Callable[[str, int], TaskRun | None],
        telemetry: Telemetry,
    ) -> None:
        super().__init__("steering")
        self._store = store
        self._worker_id = worker_id
        self._find = find
        self._telemetry = telemetry
        self._wanted: set[RunKey] = set()

    def fetch(self, runs: Collection[RunKey]) -> None:
        """Look for messages to these runs, in the background."""
        self._wanted.update(runs)
        if self._wanted:
            self.wake()

    async def turn(self) -> None:
        """Fetch what is wanted, and hand it over message by message."""
        while self._wanted:
            runs, self._wanted = self._wanted, set()
            try:
                rows = await self._store.read_steering(self._worker_id, runs)
            except ReactiveWorkerError as error:
                # The next heartbeat names them again.
                self._telemetry.emit(SteeringUnread(str(error)))
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
            self._telemetry.emit(MessageRefused(run.todo.id, why))
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
