"""What this worker holds: every claimed row until its end is stored, handed back or lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from reactive_worker.models import Todo


class Run(Protocol):
    """The handle of one running executor."""

    def cancel(self, reason: str | None = None) -> None:
        """Ask the executor to cancel; the outcome is ``cancelled``."""
        ...

    def lose(self) -> None:
        """The row is another worker's now: stop and write nothing."""
        ...

    def release(self) -> None:
        """The worker shuts down: stop and write nothing, the row is handed back."""
        ...


@dataclass(slots=True)
class Holding:
    """One claimed row."""

    todo: Todo
    run: Run | None = None
    #: True once the executor has ended and its outcome is on its way to the database.
    ended: bool = False


class Registry:
    """Claimed rows by id. Written in the event loop; `in_flight` may be read from the lease thread."""

    def __init__(self) -> None:
        self._held: dict[str, Holding] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, todo: Todo) -> Holding:
        """A row was claimed."""
        holding = self._held[todo.id] = Holding(todo)
        return holding

    def get(self, id: str, attempt: int | None = None) -> Holding | None:
        """The holding of `id`, if it is of this attempt."""
        holding = self._held.get(id)
        if holding is None or (attempt is not None and holding.todo.attempt != attempt):
            return None
        return holding

    def drop(self, id: str, attempt: int | None = None) -> Holding | None:
        """The row's end is stored, or it is not ours any more."""
        holding = self.get(id, attempt)
        return None if holding is None else self._held.pop(id)

    def running(self) -> list[Holding]:
        """Rows whose executor has not ended yet."""
        return [holding for holding in self._held.values() if not holding.ended]

    def in_flight(self) -> list[tuple[str, int]]:
        """``(id, attempt)`` of every held row."""
        # list() of a dict view is one bytecode under the GIL: safe from the lease thread.
        return [(holding.todo.id, holding.todo.attempt) for holding in list(self._held.values())]

    def lose(self, ids: Iterable[str]) -> list[Todo]:
        """Stop the runs of `ids` without writing anything; returns what was really running."""
        stopped: list[Todo] = []
        for id in ids:
            holding = self._held.get(id)
            # An ended run's outcome is being stored; the store itself says whether it was still ours.
            if holding is None or holding.ended:
                continue
            del self._held[id]
            if holding.run is not None:
                holding.run.lose()
            stopped.append(holding.todo)
        return stopped
