"""The numbers of a task's events: 1, 2, 3 ... without gaps, whatever is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from reactive_worker.models import TodoEvent

#: One run of a task: id and attempt.
RunKey = tuple[str, int]


def run_key(event: TodoEvent) -> RunKey:
    """Which run an event belongs to."""
    return (event.todolist_id, event.attempt)


class Numbering:
    """Counts each run's events from where its claim left off.

    >>> numbers = Numbering(lambda event: 7)
    >>> event = TodoEvent("1", 1, "task_progress", {})
    >>> [numbers.number(event).seq for _ in range(3)]
    [7, 8, 9]
    """

    def __init__(self, first_seq: Callable[[TodoEvent], int]) -> None:
        self._first_seq = first_seq
        self._next: dict[RunKey, int] = {}

    def number(self, event: TodoEvent) -> TodoEvent:
        """The event with its number; raises what `first_seq` raises."""
        run = run_key(event)
        seq = self._next.get(run)
        if seq is None:
            seq = self._first_seq(event)
        self._next[run] = seq + 1
        return replace(event, seq=seq)

    def take_back(self, events: Sequence[TodoEvent]) -> None:
        """Make the numbers of these, the last ones numbered, free again."""
        for event in reversed(events):
            if event.seq is not None:
                self._next[run_key(event)] = event.seq

    def drop(self, run: RunKey) -> None:
        """Forget a run that has ended."""
        self._next.pop(run, None)
