"""What flows against the stream of candidates: how much can be taken, and what became of what was offered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from reactivex.subject import BehaviorSubject, Subject

from reactive_worker.models import Demand, SweepResult
from reactive_worker.streams.dedupe import CandidateKey


class Backpressure:
    """Ties the operators of one pipeline: `polling_sweep`, `dedupe`, `prioritise` and `dispatch`.

    ::

        polling_sweep ──────── dedupe ──────── prioritise ──────── dispatch
             ▲  │                ▲              │ ▲   ▲                │
             │  └── swept ───────│──────────────│─┘   │                │
             └── wanted ─────────│──────────────┤     │                │
                                 └── released ──┴─────│────────────────┤
                                                      └ demand, settled┤
                                          limit_concurrency ◄ finished ┘

    RxPY has no backpressure, so the consumer says what it can take. Everything here is hot and belongs to one
    subscription: two pipelines need two.

    Attributes
    ----------
    demand:
        How many rows can be taken now; said by `dispatch`.
    settled:
        Ids of candidates that need no place any more: claimed, or gone.
    busy:
        Seconds by id: candidates a claim found locked by somebody else; not to be offered again before. They
        rest alone: what ranks behind them goes on.
    finished:
        Ids whose run here has ended, and those of candidates that are gone; see `limit_concurrency`.
    released:
        Ids and keys `dedupe` shall let through again: those that are finished, and those that were dropped.
    swept:
        The result of each sweep, before its candidates.
    wanted:
        Most of a full sweep is used up: sweep again.
    paused:
        While true `dispatch` claims nothing; what runs goes on.

    Example
    -------
    >>> backpressure = Backpressure()
    >>> _ = backpressure.released.subscribe(print)
    >>> backpressure.finish(["7"])
    ['7']
    """

    def __init__(self) -> None:
        self.demand: Subject[Demand] = Subject()
        self.settled: Subject[Collection[str]] = Subject()
        self.busy: Subject[Mapping[str, float]] = Subject()
        self.finished: Subject[Collection[str]] = Subject()
        self.released: Subject[Iterable[CandidateKey | str]] = Subject()
        self.swept: Subject[SweepResult] = Subject()
        self.wanted: Subject[None] = Subject()
        self.paused: BehaviorSubject[bool] = BehaviorSubject(False)

    def finish(self, ids: Collection[str]) -> None:
        """These run here no more, or are gone: they may come back as they were (cancelled, then retried)."""
        self.finished.on_next(ids)
        self.released.on_next(ids)
