"""Pure operators: what flows through a worker, as Rx streams without sockets, SQL or tasks of their own.

Every operator here is given what it calls, keeps its state per subscription, disposes of everything it
acquired, and takes its time from a scheduler: the one given to it, else the subscription's. All callbacks are
expected on one thread, the event loop's; nothing here locks.
"""

from reactive_worker.streams.backoff import Backoff, RandomSource, spread
from reactive_worker.streams.dedupe import dedupe
from reactive_worker.streams.dispatch import dispatch
from reactive_worker.streams.guarded import Hook, guarded
from reactive_worker.streams.hold_until_due import hold_until_due
from reactive_worker.streams.merge_chunks import merge_chunks
from reactive_worker.streams.polling_sweep import polling_sweep
from reactive_worker.streams.prioritise import Order, prioritise
from reactive_worker.streams.ranking import PriorityKey, Ranking, SortedRanking, default_priority
from reactive_worker.streams.realtime_candidates import realtime_candidates
from reactive_worker.streams.sink import BatchResult, StoredBatch, sink

__all__ = [
    "Backoff",
    "BatchResult",
    "Hook",
    "Order",
    "PriorityKey",
    "RandomSource",
    "Ranking",
    "SortedRanking",
    "StoredBatch",
    "dedupe",
    "default_priority",
    "dispatch",
    "guarded",
    "hold_until_due",
    "merge_chunks",
    "polling_sweep",
    "prioritise",
    "realtime_candidates",
    "sink",
    "spread",
]
