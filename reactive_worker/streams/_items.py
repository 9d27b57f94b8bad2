"""Events with what they weigh, and how a batch of them is taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reactive_worker.models import TodoEvent
from reactive_worker.streams._numbering import RunKey, run_key


class Item(NamedTuple):
    """One event on its way to the store, and its size in bytes as the caller measures it."""

    event: TodoEvent
    size: int = 0

    @property
    def run(self) -> RunKey:
        """Whose event it is."""
        return run_key(self.event)


def by_run(items: Sequence[Item]) -> dict[RunKey, list[Item]]:
    """The items of each run, in their order; runs by their first item."""
    runs: dict[RunKey, list[Item]] = {}
    for item in items:
        runs.setdefault(item.run, []).append(item)
    return runs


def halves(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Two batches of whole runs, about as large as each other: what one run said stays together, in order.

    Of two runs or more; neither half is empty.

    >>> from reactive_worker.testing.marbles import event
    >>> first, second = halves([Item(event(name)) for name in "abacad"])
    >>> [item.event.todolist_id for item in first], [item.event.todolist_id for item in second]
    (['a', 'a', 'a'], ['b', 'c', 'd'])
    """
    first: list[Item] = []
    second: list[Item] = []
    for run in by_run(items).values():
        (first if len(first) + len(run) <= max(len(items) // 2, len(run)) else second).extend(run)
    return first, second


class Ceiling:
    """How much a batch may hold: less after one that did not pass, and slowly more again while they do.

    A store may be slow rather than away: then the batch that timed out times out again, and so does every one
    of its size. Growing by a sixteenth costs one more refusal in eight batches, not in two.
    """

    def __init__(self, rows: int, size: int | None) -> None:
        self._most_rows = self.rows = rows
        self._most_size = self.size = size

    def shrink(self, items: Sequence[Item]) -> None:
        """A batch of these was refused for now."""
        self.rows = max(1, min(self.rows, len(items) // 2))
        if self.size is not None:
            self.size = max(1, min(self.size, sum(item.size for item in items) // 2))

    def grow(self) -> None:
        """A batch was stored."""
        self.rows = min(self._most_rows, self.rows + max(1, self._most_rows // 16))
        if self.size is not None and self._most_size is not None:
            self.size = min(self._most_size, self.size + max(1, self._most_size // 16))
