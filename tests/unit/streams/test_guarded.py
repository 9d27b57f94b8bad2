"""`guarded`: whatever a hook does, the stream goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import Subject

from reactive_worker.streams import guarded
from reactive_worker.testing.marbles import Recording, VirtualTime


class Rig:
    def __init__(self, hook: Callable[[Observable[Any]], Any], **options: Any) -> None:
        self.time = VirtualTime()
        self.source: Subject[Any] = Subject()
        self.errors: list[Exception] = []
        guard = guarded(hook, on_error=self.errors.append, **options)
        self.result: Recording[Any] = self.time.observe(self.source.pipe(guard))

    def send(self, *items: Any) -> list[Any]:
        for item in items:
            self.source.on_next(item)
        return self.result.values

    @property
    def told(self) -> list[str]:
        return [type(error).__name__ for error in self.errors]


def upside_down(source: Observable[Any]) -> Observable[Any]:
    return source.pipe(ops.map(lambda n: 12 // n))


def raising(source: Observable[Any]) -> Observable[Any]:
    """An operator of the naive kind: its `on_next` raises into the source."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        return source.subscribe(
            lambda n: observer.on_next(12 // n), observer.on_error, observer.on_completed, scheduler=scheduler
        )

    return Observable(subscribe)


both_ways_to_fail = pytest.mark.parametrize("hook", [upside_down, raising])


@both_ways_to_fail
def test_a_failing_item_is_told_once_and_the_next_one_passes(hook: Any) -> None:
    rig = Rig(hook)
    assert rig.send(1, 0, 3, 0, 0, 4) == [12, 4, 3]
    assert rig.told == ["ZeroDivisionError"] * 3
    assert not rig.result.completed


@both_ways_to_fail
def test_the_fallback_stands_in_for_an_item_of_which_nothing_came_out(hook: Any) -> None:
    rig = Rig(hook, fallback=lambda n: ("as it was", n))
    assert rig.send(1, 0, 3) == [12, ("as it was", 0), 4]


def test_no_fallback_for_an_item_of_which_something_came_out() -> None:
    def hook(source: Observable[Any]) -> Observable[Any]:
        return source.pipe(ops.flat_map(lambda n: reactivex.of(n, 0)), ops.map(lambda n: 12 // n))

    rig = Rig(hook, fallback=lambda n: "instead")
    rig.time.advance(0)
    rig.send(3)
    rig.time.advance(1)
    assert rig.result.values == [4]
    assert rig.told == ["ZeroDivisionError"]


def test_the_hook_starts_again_with_empty_hands() -> None:
    def hook(source: Observable[Any]) -> Observable[Any]:
        return source.pipe(ops.map(lambda n: 12 // n), ops.scan(lambda total, n: total + n))

    assert Rig(hook).send(1, 2, 0, 3, 4) == [12, 18, 4, 7]


def test_a_hook_may_use_the_source_more_than_once() -> None:
    rig = Rig(lambda s: reactivex.merge(s.pipe(ops.map(lambda n: 12 // n)), s))
    heard: list[int] = []
    for n in (1, 0, 3):
        # RxPY's merge subscribes to what it merges on the scheduler's next turn.
        rig.time.advance(0)
        heard = rig.send(n)
    assert heard == [12, 1, 4, 3]


def test_completion_of_the_hooked_stream_completes() -> None:
    rig = Rig(ops.take(2))
    assert rig.send(1, 2, 3) == [1, 2]
    assert rig.result.completed
    assert rig.source.observers == []


def test_completion_of_the_source_goes_through_the_hook() -> None:
    rig = Rig(ops.to_list())
    rig.send(1, 2)
    rig.source.on_completed()
    assert rig.result.values == [[1, 2]]
    assert rig.result.completed


@pytest.mark.parametrize(
    "hook",
    [
        lambda s: s.pipe(ops.to_list(), ops.map(lambda numbers: numbers[99])),
        lambda s: Observable(lambda o, _=None: s.subscribe(o.on_next, o.on_error, lambda: [][0])),
    ],
    ids=["errors", "raises"],
)
def test_a_hook_that_fails_at_the_end_is_told_and_the_stream_completes(hook: Any) -> None:
    rig = Rig(hook)
    rig.send(1)
    rig.source.on_completed()
    assert rig.told == ["IndexError"]
    assert rig.result.completed


def test_the_source_error_ends_it() -> None:
    rig = Rig(upside_down)
    error = RuntimeError("the source broke")
    rig.source.on_error(error)
    assert (rig.result.error, rig.errors) == (error, [])


def test_a_hook_that_fails_on_subscription_fails_once_an_item_and_does_not_spin() -> None:
    def hook(source: Observable[Any]) -> Observable[Any]:
        return Observable(lambda observer, _=None: observer.on_error(RuntimeError("never works")))

    rig = Rig(hook, fallback=lambda n: n)
    assert rig.told == ["RuntimeError"]
    assert rig.send(1, 2) == [1, 2]
    assert rig.told == ["RuntimeError"] * 3
    rig.source.on_completed()
    assert rig.result.completed


def test_a_hook_with_a_clock_of_its_own_comes_back_with_the_next_item() -> None:
    rig = Rig(ops.timeout(5.0))
    rig.time.advance(20)
    assert len(rig.errors) == 1
    assert rig.send(1) == [1]
    rig.time.advance(20)
    # Once for the silence after the item; after that it waits for the next one.
    assert len(rig.errors) == 3
    assert rig.send(2) == [1, 2]


def test_a_hook_that_cannot_be_called_ends_the_stream() -> None:
    rig = Rig(lambda s: {}["hook"])
    assert isinstance(rig.result.error, KeyError)


def test_a_hook_that_returns_no_stream_says_so() -> None:
    rig = Rig(lambda s: None, name="candidates hook")
    assert str(rig.result.error) == "the candidates hook must return an Observable, not NoneType"


@both_ways_to_fail
def test_failures_downstream_are_not_the_hooks(hook: Any) -> None:
    source: Subject[int] = Subject()
    errors: list[Exception] = []
    heard: list[int] = []

    def listen(n: int) -> None:
        heard.append(n)
        if n == 12:
            raise LookupError("downstream")

    source.pipe(guarded(hook, on_error=errors.append)).subscribe(listen)
    with pytest.raises(LookupError, match="downstream"):
        source.on_next(1)
    source.on_next(2)
    assert (heard, errors) == ([12, 6], [])


def test_disposal_lets_go_of_hook_and_source() -> None:
    closed: list[str] = []
    rig = Rig(lambda s: s.pipe(ops.finally_action(lambda: closed.append("hook"))))
    rig.send(1)
    rig.result.dispose()
    assert (closed, rig.source.observers, rig.send(2)) == (["hook"], [], [1])


def test_a_failed_application_is_let_go_of() -> None:
    closed: list[str] = []
    rig = Rig(lambda s: s.pipe(ops.finally_action(lambda: closed.append("hook")), raising))
    rig.send(1, 0)
    assert closed == ["hook"]
    assert rig.send(2) == [12, 6]
