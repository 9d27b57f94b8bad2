"""Who wants which changes, by table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reactive_worker.local.realtime.filters import Filter


class Subscriber(Protocol):
    """A channel, as far as changes go."""

    def deliver(self, event: str, ids: Sequence[int], data: str) -> None:
        """Take one change: its kind, the bindings that matched, and the data as JSON text."""
        ...

    def subscribe(self) -> None:
        """Subscribe anew, with all bindings; ends with a `system` message."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One binding on one table, in force."""

    subscriber: Subscriber
    binding_id: int
    table_oid: int
    event: str
    filters: tuple[Filter, ...]
    selected: frozenset[str] | None
    role: str
    #: The token's claims as JSON: what policies read.
    claims: str

    def wants(self, event: str) -> bool:
        """Whether it asked for this kind of change."""
        return self.event in ("*", event)


class Registry:
    """Subscriptions in force, by table."""

    def __init__(self) -> None:
        self._by_table: dict[int, list[Subscription]] = {}

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._by_table.values())

    def subscribers(self) -> list[Subscriber]:
        """Every channel that has subscriptions in force."""
        return list(
            dict.fromkeys(entry.subscriber for entries in self._by_table.values() for entry in entries)
        )

    def on(self, table_oid: int) -> Sequence[Subscription]:
        """Subscriptions on one table, in the order they were made."""
        return self._by_table.get(table_oid, ())

    def replace(self, subscriber: Subscriber, subscriptions: Iterable[Subscription]) -> None:
        """Put a channel's subscriptions in force, instead of those it had."""
        self.remove(subscriber)
        for subscription in subscriptions:
            self._by_table.setdefault(subscription.table_oid, []).append(subscription)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a channel."""
        for oid, entries in list(self._by_table.items()):
            kept = [entry for entry in entries if entry.subscriber is not subscriber]
            if kept:
                self._by_table[oid] = kept
            else:
                del self._by_table[oid]
