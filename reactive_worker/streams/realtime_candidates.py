"""Rows as Realtime tells them -> candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reactivex import Observable, abc

from reactive_worker.models import Candidate, TodoStatus

Record = Mapping[str, Any]


def realtime_candidates(
    on_invalid: Callable[[Record, Exception], None],
) -> Callable[[Observable[Record]], Observable[Candidate]]:
    """Turn row records into candidates; a row that cannot be read is one report and not the end.

    ::

        records     --r1---??---r2---x2--|     ?? cannot be read, x2 is not pending
        candidates  --c1--------c2-------|
        on_invalid         ??

    Parameters
    ----------
    on_invalid:
        Told the record and why it cannot be a candidate.

    Returns
    -------
    An operator. Records whose `agent_status` says they are not pending are left out silently: somebody was
    quicker, or the row was inserted finished.

    Raises
    ------
    Nothing through the stream but the source's own error.

    Example
    -------
    >>> from reactivex.subject import Subject
    >>> records = Subject()
    >>> _ = records.pipe(realtime_candidates(lambda record, error: print(error))).subscribe(print)
    >>> records.on_next({"id": "no uuid"})
    id is not a uuid: 'no uuid'
    """

    def operator(source: Observable[Record]) -> Observable[Candidate]:
        def subscribe(
            observer: abc.ObserverBase[Candidate], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_next(record: Record) -> None:
                try:
                    if record.get("agent_status", TodoStatus.PENDING) != TodoStatus.PENDING:
                        return
                    candidate = Candidate.from_row(record, source="realtime")
                except Exception as error:  # noqa: BLE001 - foreign data: whatever it breaks
                    on_invalid(record, error)
                    return
                observer.on_next(candidate)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
