"""Operators of one's own: keep a noisy neighbour waiting, and count what the executors say.

A candidate is a row nobody has claimed yet. Whatever an operator drops or delays is offered again by a later
sweep, so nothing is lost.
"""

import asyncio
from collections import Counter

from own_worker import Shout
from reactivex import Observable
from reactivex import operators as ops

from reactive_worker import Candidate, ReactiveWorker, TodoEvent


def urgent_first(candidates: Observable[Candidate]) -> Observable[Candidate]:
    """Hold ordinary rows back for half a second, so that an urgent one inserted meanwhile goes ahead."""
    return candidates.pipe(
        ops.group_by(lambda candidate: candidate.priority > 0),
        ops.flat_map(lambda group: group if group.key else group.pipe(ops.delay(0.5))),
    )


said: Counter[str] = Counter()


def counted(events: Observable[TodoEvent]) -> Observable[TodoEvent]:
    """Count event types on their way into the table."""
    return events.pipe(ops.do_action(lambda event: said.update([event.event_type])))


async def main() -> None:
    worker = ReactiveWorker(Shout(), agent_type="shout", candidates=urgent_first, events=counted)
    # worker.events is hot: everything said, for whoever listens.
    worker.events.pipe(ops.filter(lambda event: event.outcome is not None)).subscribe(
        lambda event: print(f"{event.todolist_id}  {event.event_type}   said so far: {dict(said)}")
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
