"""What this worker holds (in flight): every claimed row until its end is stored, handed back or lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reactive_worker.models import Todo


@dataclass(slots=True)
class HeldTask:
    """One claimed row."""

    todo: Todo
    #: True once the executor has ended and its outcome is on its way to the database.
    ended: bool = False


class Held:
    """Claimed rows by id. Written in the event loop; `in_flight` may be read from the lease thread."""

    def __init__(self) -> None:
        self._held: dict[str, HeldTask] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, todo: Todo) -> HeldTask:
        """A row was claimed."""
        holding = self._held[todo.id] = HeldTask(todo)
        return holding

    def get(self, id: str, attempt: int | None = None) -> HeldTask | None:
        """The holding of `id`, if it is of this attempt."""
        holding = self._held.get(id)
        if holding is None or (attempt is not None and holding.todo.attempt != attempt):
            return None
        return holding

    def drop(self, id: str, attempt: int | None = None) -> HeldTask | None:
        """The row's end is stored, or it is not ours any more."""
        holding = self.get(id, attempt)
        return None if holding is None else self._held.pop(id)

    def running(self) -> list[HeldTask]:
        """Rows whose executor has not ended yet."""
        return [holding for holding in self._held.values() if not holding.ended]

    def in_flight(self) -> list[tuple[str, int]]:
        """``(id, attempt)`` of every held row."""
        # list() of a dict view is one bytecode under the GIL: safe from the lease thread.
        return [(holding.todo.id, holding.todo.attempt) for holding in list(self._held.values())]

    def lose(self, runs: Iterable[tuple[str, int]]) -> list[Todo]:
        """Let go of those runs, as (id, attempt), whose executor has not ended; returns their rows.

        An ended run's outcome is on its way to the database, which itself says whether it was still ours.
        """
        lost = [
            held.todo
            for id, attempt in runs
            if (held := self.get(id, attempt)) is not None and not held.ended
        ]
        for todo in lost:
            del self._held[todo.id]
        return lost
