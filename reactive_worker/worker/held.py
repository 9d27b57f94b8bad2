"""What this worker holds (in flight): every claimed row until its end is stored, handed back or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from reactive_worker.models import Todo
from reactive_worker.store.heartbeat import RunKey


@dataclass(slots=True)
class HeldTask:
    """One claimed row."""

    todo: Todo
    #: True once the executor has ended and its outcome is on its way to the database.
    ended: bool = False

    @property
    def key(self) -> RunKey:
        """``(id, attempt)``: an id alone says nothing about a run."""
        return (self.todo.id, self.todo.attempt)


class Held:
    """Claimed rows by (id, attempt). Written in the event loop; `in_flight` may be read from any thread.

    Example
    -------
    >>> from reactive_worker.testing.marbles import todo
    >>> held = Held()
    >>> _ = held.hold(todo("a", attempt=1)), held.hold(todo("a", attempt=2))
    >>> [task.attempt for task in held.lose([("a", 1)])], held.in_flight()
    ([1], [('a', 2)])
    """

    def __init__(self) -> None:
        self._held: dict[RunKey, HeldTask] = {}
        self._claims = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is under way: its answer may bring rows that are not held yet."""
        return self._claims > 0

    @contextmanager
    def claiming(self) -> Generator[None]:
        """A claim is under way."""
        self._claims += 1
        try:
            yield
        finally:
            self._claims -= 1
            self._changed.set()

    def hold(self, todo: Todo) -> HeldTask:
        """A row was claimed."""
        task = self._held[todo.id, todo.attempt] = HeldTask(todo)
        return task

    def get(self, id: str, attempt: int) -> HeldTask | None:
        """What is held of this run."""
        return self._held.get((id, attempt))

    def drop(self, id: str, attempt: int) -> HeldTask | None:
        """The row's end is stored, or it is not ours any more."""
        self._changed.set()
        return self._held.pop((id, attempt), None)

    def running(self) -> list[HeldTask]:
        """Rows whose executor has not ended yet."""
        return [task for task in self._held.values() if not task.ended]

    def in_flight(self) -> list[RunKey]:
        """``(id, attempt)`` of every held row."""
        # list() of a dict is one bytecode under the GIL: safe from the heartbeat's thread.
        return list(self._held)

    def lose(self, runs: Iterable[RunKey]) -> list[Todo]:
        """Let go of those `runs` whose executor has not ended; returns their rows, to be stopped.

        An ended run's outcome is on its way to the database, which itself says whether it was still ours.
        """
        lost = [task.todo for key in runs if (task := self._held.get(key)) is not None and not task.ended]
        for todo in lost:
            self.drop(todo.id, todo.attempt)
        return lost

    async def empty(self) -> None:
        """Wait until nothing is held and no claim is under way."""
        while self._held or self._claims:
            self._changed.clear()
            await self._changed.wait()
