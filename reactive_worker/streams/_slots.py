"""The slots of a worker: who holds one, overall and per agent type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from reactivex.disposable import SingleAssignmentDisposable

from reactive_worker.models import Todo


class Slots:
    """Counts what runs, and disposes of it when the worker is disposed.

    >>> from reactive_worker.testing.marbles import todo
    >>> slots = Slots(2, {"digest": 1})
    >>> number = slots.take(todo("a"))
    >>> slots.free, slots.room()
    (1, {'digest': 0})
    >>> slots.give_back(number), slots.give_back(number), slots.free
    (True, False, 2)
    """

    def __init__(self, concurrency: int, per_type: Mapping[str, int]) -> None:
        self._concurrency = concurrency
        self._per_type = per_type
        self._runs: dict[int, tuple[str, SingleAssignmentDisposable]] = {}
        self._by_type: Counter[str] = Counter()
        self._number = 0

    @property
    def free(self) -> int:
        return self._concurrency - len(self._runs)

    @property
    def idle(self) -> bool:
        return not self._runs

    def room(self) -> dict[str, int]:
        """What is left for each agent type that has a limit."""
        return {kind: max(most - self._by_type[kind], 0) for kind, most in self._per_type.items()}

    def take(self, todo: Todo) -> int:
        """Take a slot for a row; returns the slot's number."""
        self._number += 1
        self._runs[self._number] = (todo.agent_type, SingleAssignmentDisposable())
        self._by_type[todo.agent_type] += 1
        return self._number

    def run(self, number: int) -> SingleAssignmentDisposable:
        """Where the subscription to the run goes."""
        return self._runs[number][1]

    def give_back(self, number: int) -> bool:
        """Free a slot; returns whether it was taken still."""
        taken = self._runs.pop(number, None)
        if taken is None:
            return False
        kind = taken[0]
        self._by_type[kind] -= 1
        if not self._by_type[kind]:
            del self._by_type[kind]
        return True

    def dispose(self) -> None:
        """Dispose of all that runs."""
        runs = list(self._runs.values())
        self._runs.clear()
        self._by_type.clear()
        for _, run in runs:
            run.dispose()
