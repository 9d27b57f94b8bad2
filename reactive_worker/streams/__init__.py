"""Pure operators: what flows through a worker, as Rx streams without sockets, SQL or tasks of their own.

Every operator here is given what it calls, keeps its state per subscription, disposes of everything it
acquired, and takes its time from a scheduler: the one given to it, else the subscription's. All callbacks are
expected on one thread, the event loop's; nothing here locks.
"""

from reactive_worker.backoff import Backoff, RandomSource, spread
from reactive_worker.streams._priority import PriorityKey, default_priority
from reactive_worker.streams._ranking import Ranking, SortedRanking
from reactive_worker.streams.aging import aging
from reactive_worker.streams.backpressure import Backpressure
from reactive_worker.streams.circuit_breaker import BreakerState, circuit_breaker, outcome_verdict
from reactive_worker.streams.dedupe import dedupe
from reactive_worker.streams.dispatch import dispatch
from reactive_worker.streams.fair_by import FairOrder, fair_by
from reactive_worker.streams.guarded import Hook, guarded
from reactive_worker.streams.hold_until_due import hold_until_due
from reactive_worker.streams.limit_concurrency import limit_concurrency
from reactive_worker.streams.merge_chunks import merge_chunks
from reactive_worker.streams.pause_while import pause_while
from reactive_worker.streams.polling_sweep import polling_sweep
from reactive_worker.streams.prioritise import Order, prioritise
from reactive_worker.streams.rate_limit import rate_limit
from reactive_worker.streams.realtime_candidates import realtime_candidates
from reactive_worker.streams.sink import BatchResult, StoredBatch, sink
from reactive_worker.streams.tap_log import tap_log

__all__ = [
    "Backoff",
    "Backpressure",
    "BatchResult",
    "BreakerState",
    "FairOrder",
    "Hook",
    "Order",
    "PriorityKey",
    "RandomSource",
    "Ranking",
    "SortedRanking",
    "StoredBatch",
    "aging",
    "circuit_breaker",
    "dedupe",
    "default_priority",
    "dispatch",
    "fair_by",
    "guarded",
    "hold_until_due",
    "limit_concurrency",
    "merge_chunks",
    "outcome_verdict",
    "pause_while",
    "polling_sweep",
    "prioritise",
    "rate_limit",
    "realtime_candidates",
    "sink",
    "spread",
    "tap_log",
]
