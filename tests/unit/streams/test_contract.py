"""What every operator promises, whatever it does: it ends with its source, lets go of it, shares nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable

from reactive_worker.models import ClaimResult, Demand
from reactive_worker.streams import (
    Backpressure,
    BatchResult,
    circuit_breaker,
    dedupe,
    dispatch,
    guarded,
    hold_until_due,
    limit_concurrency,
    pause_while,
    prioritise,
    rate_limit,
    realtime_candidates,
    sink,
    tap_log,
)
from reactive_worker.testing.marbles import VirtualTime, candidates, event, todo

Operator = Callable[[Observable[Any]], Observable[Any]]


def _dispatch() -> Operator:
    return dispatch(
        lambda offered, want: reactivex.just(ClaimResult(tuple(todo(c) for c in offered[:want]), ())),
        lambda row: reactivex.timer(1.0).pipe(ops.map(lambda _: event(row.id))),
        Backpressure(),
        concurrency=2,
        on_error=lambda row, error: None,
    )


def _prioritise() -> Operator:
    """With a demand each second: what flows back belongs to one subscription, so each gets its own."""

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            backpressure = Backpressure()
            windows = source.pipe(prioritise(backpressure)).subscribe(observer, scheduler=scheduler)
            asking = reactivex.timer(0, 1).pipe(ops.map(lambda _: Demand(9)))
            return CompositeDisposable(
                windows, asking.subscribe(backpressure.demand.on_next, scheduler=scheduler)
            )

        return Observable(subscribe)

    return operator


def _sink() -> Operator:
    return sink(
        lambda events: reactivex.just(BatchResult()),
        first_seq=lambda said: 2,
        retryable=lambda error: True,
        on_lost=lambda ids: None,
        on_error=lambda said, error: None,
    )


_ROWS = candidates("ab")
_RECORDS = {
    "a": {"id": "6c0e1f3e-2f6f-4f0e-9d3b-0c9a5b1d2e3f", "agent_type": "digest", "created_at": "2030-01-01"},
    "b": {"id": "7c0e1f3e-2f6f-4f0e-9d3b-0c9a5b1d2e3f", "agent_type": "digest", "created_at": "2030-01-01"},
}

#: name -> (how to make the operator, what "a" and "b" are)
OPERATORS: dict[str, tuple[Callable[[], Operator], dict[str, Any]]] = {
    "guarded": (lambda: guarded(lambda s: s, on_error=lambda error: None), _ROWS),
    "realtime_candidates": (lambda: realtime_candidates(lambda record, error: None), _RECORDS),
    "hold_until_due": (lambda: hold_until_due(), _ROWS),
    "dedupe": (lambda: dedupe(), _ROWS),
    "pause_while": (lambda: pause_while(reactivex.never()), _ROWS),
    "rate_limit": (lambda: rate_limit(lambda row: row.id, 1.0), _ROWS),
    "limit_concurrency": (
        lambda: limit_concurrency(lambda row: row.id, 1, finished=reactivex.never()),
        _ROWS,
    ),
    "circuit_breaker": (lambda: circuit_breaker(reactivex.never()), _ROWS),
    "tap_log": (lambda: tap_log("rows", level=0), _ROWS),
    "prioritise": (_prioritise, _ROWS),
    "dispatch": (_dispatch, {name: [row] for name, row in _ROWS.items()}),
    "sink": (_sink, {name: event(name) for name in "ab"}),
}

every_operator = pytest.mark.parametrize(
    ("make", "values"), [pytest.param(*case, id=name) for name, case in OPERATORS.items()]
)


@every_operator
def test_items_come_out(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-a---b---", values).pipe(make()))
    time.run(20)
    assert len(result.values) >= 2
    assert result.error is None


@every_operator
def test_empty_completes(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    result = time.observe(time.hot("---|", values).pipe(make()))
    time.run(20)
    assert result.messages == time.messages("---|")


@every_operator
def test_never_says_nothing_and_stays(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    source = time.hot("-----", values)
    result = time.observe(source.pipe(make()))
    time.run(20)
    assert result.messages == []
    assert source.subscriptions == [(0, None)]


@every_operator
def test_the_source_error_is_its_error(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    error = RuntimeError("the source broke")
    result = time.observe(time.hot("--#", values, error).pipe(make()))
    time.run(20)
    assert result.messages == time.messages("--#", error=error)


@every_operator
def test_disposal_half_way_lets_go_of_the_source(
    make: Callable[[], Operator], values: dict[str, Any]
) -> None:
    time = VirtualTime()
    source = time.hot("-a---b---a---b--|", values)
    result = time.observe(source.pipe(make()))
    time.run(4)
    result.dispose()
    said = len(result.messages)
    assert source.subscriptions == [(0, 4)]
    time.run(60)
    assert len(result.messages) == said


@every_operator
def test_two_subscribers_share_nothing(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    source = time.hot("-a---b---|", values).pipe(make())
    first, second = time.observe(source), time.observe(source)
    time.run(20)

    def shown(recording: Any) -> list[Any]:
        # Numbers of retries and ids of events differ for no reason of the operator's.
        return [(message.time, message.kind) for message in recording.messages]

    assert first.values
    assert shown(first) == shown(second)


@every_operator
def test_a_second_subscription_starts_afresh(make: Callable[[], Operator], values: dict[str, Any]) -> None:
    time = VirtualTime()
    result = time.cold("-a---b---|", values).pipe(make())
    first = time.observe(result)
    time.run(30)
    first.dispose()
    second = time.observe(result)
    time.run(60)
    assert [m.time + 30 for m in first.messages] == pytest.approx([m.time for m in second.messages])
