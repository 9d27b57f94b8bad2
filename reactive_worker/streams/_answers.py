"""What a store says about a batch, and what a `sink` says when it is stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from reactivex import Observable

from reactive_worker.models import TodoEvent
from reactive_worker.streams._numbering import RunKey


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What `store` answers about the runs in a batch, each named by (task id, attempt).

    Everything of a run that is not named here was stored.
    """

    #: Runs that are another worker's now; nothing of theirs was stored.
    lost: Collection[RunKey] = ()
    #: Runs of which nothing could be stored now, and why (somebody holds the row): tried again by themselves.
    busy: Mapping[RunKey, Exception] = field(default_factory=dict[RunKey, Exception])
    #: Runs of which nothing was stored, for a reason that lies in what they said.
    refused: Mapping[RunKey, Exception] = field(default_factory=dict[RunKey, Exception])


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """What the sink emits: the events that are in the table now, numbered."""

    events: tuple[TodoEvent, ...]
    #: Runs, as (task id, attempt), that turned out to be another worker's.
    lost: tuple[RunKey, ...] = ()


#: Writes a batch; see `sink`.
Store = Callable[[list[TodoEvent]], Observable[BatchResult]]
