"""Virtual time and marble diagrams: test your operators on hours of stream, in no time.

A marble diagram is time from left to right, one character a step: ``-`` is nothing, a name is an item, ``|``
the end, ``#`` an error, ``(a,b)`` several at the step of the bracket. A name or a bracket takes as many steps
as it has characters, so names are kept apart by ``-``; spaces are for the eye only.

>>> from reactive_worker.streams import dedupe
>>> time = VirtualTime()
>>> rows = candidates("ab")
>>> source = time.hot("-a-b-a-------a--|", rows)
>>> result = time.observe(source.pipe(dedupe(ttl=10)))
>>> time.run()
>>> assert result.messages == time.messages("-a-b---------a--|", rows)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.notification import Notification, OnError, OnNext
from reactivex.observable.marbles import parse
from reactivex.testing import ReactiveTest, Recorded, TestScheduler

from reactive_worker.models import Candidate, Outcome, Todo, TodoEvent, TodoStatus

_T = TypeVar("_T")

#: Where virtual time begins, and when rows made here are due unless they say otherwise.
EPOCH = datetime.fromtimestamp(0, UTC)


class Message(NamedTuple):
    """One thing a stream said: when (seconds), what kind, and the value or the error."""

    time: float
    kind: Literal["next", "error", "completed"]
    value: Any = None


class Recording(abc.ObserverBase[_T], Generic[_T]):
    """What an observer heard. `dispose` ends the subscription."""

    def __init__(self, scheduler: TestScheduler) -> None:
        self._scheduler = scheduler
        self._subscription: abc.DisposableBase | None = None
        #: Everything, in order.
        self.messages: list[Message] = []

    @property
    def values(self) -> list[_T]:
        """The items alone."""
        return [message.value for message in self.messages if message.kind == "next"]

    @property
    def times(self) -> list[float]:
        """When each item came, in seconds."""
        return [message.time for message in self.messages if message.kind == "next"]

    @property
    def error(self) -> Exception | None:
        """The error that ended the stream."""
        return next((message.value for message in self.messages if message.kind == "error"), None)

    @property
    def completed(self) -> bool:
        """Whether the stream completed."""
        return any(message.kind == "completed" for message in self.messages)

    def on_next(self, value: _T) -> None:
        self._record("next", value)

    def on_error(self, error: Exception) -> None:
        self._record("error", error)

    def on_completed(self) -> None:
        self._record("completed")

    def listen(self, source: Observable[_T]) -> None:
        """Subscribe to a stream, in virtual time."""
        self._subscription = source.subscribe(self, scheduler=self._scheduler)

    def dispose(self) -> None:
        """Unsubscribe now."""
        if self._subscription is not None:
            self._subscription.dispose()

    def _record(self, kind: Literal["next", "error", "completed"], value: Any = None) -> None:
        self.messages.append(Message(_seconds(self._scheduler), kind, value))


class Source(Observable[_T], Generic[_T]):
    """A stream made of a diagram; `subscriptions` says who listened from when to when (None: still)."""

    def __init__(self, scheduler: TestScheduler, inner: Observable[_T]) -> None:
        self.subscriptions: list[tuple[float, float | None]] = []

        def subscribe(
            observer: abc.ObserverBase[_T], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            number = len(self.subscriptions)
            self.subscriptions.append((_seconds(scheduler), None))
            subscription = inner.subscribe(observer, scheduler=scheduler_)

            def unsubscribe() -> None:
                begin, _ = self.subscriptions[number]
                self.subscriptions[number] = (begin, _seconds(scheduler))

            return CompositeDisposable(Disposable(unsubscribe), subscription)

        super().__init__(subscribe)


class VirtualTime:
    """A clock that stands until it is told to go, and streams drawn as marbles on it.

    Parameters
    ----------
    step:
        Seconds one character of a diagram stands for.

    Example
    -------
    >>> from reactivex import operators as ops
    >>> time = VirtualTime(step=0.5)
    >>> result = time.observe(time.cold("-a-b|").pipe(ops.delay(1.0)))
    >>> time.advance(2.0)
    >>> result.messages
    [Message(time=1.5, kind='next', value='a')]
    """

    def __init__(self, step: float = 1.0) -> None:
        self.step = step
        #: Give it to operators that are not subscribed through `observe`.
        self.scheduler = TestScheduler()

    @property
    def seconds(self) -> float:
        """How much time has passed."""
        return _seconds(self.scheduler)

    def now(self) -> datetime:
        """The time as a datetime, for operators that take a `now`."""
        return self.scheduler.now

    def hot(
        self, diagram: str, values: Mapping[str, _T] | None = None, error: Exception | None = None
    ) -> Source[_T]:
        """A stream that goes on whether anybody listens or not; the diagram begins now."""
        begin = self.seconds
        records = [_record(begin + at, what) for at, what in self._parse(diagram, values, error)]
        return Source(self.scheduler, self.scheduler.create_hot_observable(records))

    def cold(
        self, diagram: str, values: Mapping[str, _T] | None = None, error: Exception | None = None
    ) -> Source[_T]:
        """A stream that begins anew for each subscriber."""
        records = [_record(at, what) for at, what in self._parse(diagram, values, error)]
        return Source(self.scheduler, self.scheduler.create_cold_observable(records))

    def messages(
        self, diagram: str, values: Mapping[str, Any] | None = None, error: Exception | None = None
    ) -> list[Message]:
        """What a recording holds if it heard this diagram from the beginning of time."""
        return [_message(at, what) for at, what in self._parse(diagram, values, error)]

    def observe(self, source: Observable[_T]) -> Recording[_T]:
        """Subscribe now, in virtual time, and record what comes."""
        recording: Recording[_T] = Recording(self.scheduler)
        recording.listen(source)
        return recording

    def advance(self, seconds: float) -> None:
        """Let this much time pass; 0 runs what is due at this moment."""
        target = self.seconds + seconds
        if seconds <= 0:
            # RxPY does nothing when it is told to go where it is.
            target += 1e-6
        self.scheduler.advance_to(target)

    def run(self, until: float = 10_000.0) -> None:
        """Let time pass until `until`, in seconds from the beginning."""
        if until > self.seconds:
            self.scheduler.advance_to(until)

    def _parse(
        self, diagram: str, values: Mapping[str, Any] | None, error: Exception | None
    ) -> list[tuple[float, Notification[Any]]]:
        read: list[tuple[float, Notification[Any]]] = []
        for at, what in parse(diagram, timespan=self.step, error=error, raise_stopped=True):
            if values is not None and isinstance(what, OnNext):
                # RxPY reads digits as numbers; names here are always text.
                name = str(cast("Any", what).value)
                if name not in values:
                    raise KeyError(f"the diagram {diagram!r} names {name!r}, the values do not")
                what = OnNext(values[name])
            read.append((round(cast("float", at), 6), what))
        return read


def candidates(names: Iterable[str], **columns: Any) -> dict[str, Candidate]:
    """One candidate for each name, for use as the values of a diagram; see `candidate`.

    >>> candidates("ab", priority=3)["b"].priority
    3
    """
    return {name: candidate(name, **columns) for name in names}


def candidate(
    id: str,
    *,
    priority: int = 0,
    agent_type: str = "digest",
    attempt: int = 0,
    due: float = 0.0,
    created: float = 0.0,
    owner_id: str | None = None,
    context_id: str | None = None,
    source: Literal["realtime", "sweep"] = "sweep",
) -> Candidate:
    """A candidate; `due` and `created` are seconds of virtual time.

    >>> candidate("a", due=60).available_at.minute
    1
    """
    return Candidate(
        id=id,
        agent_type=agent_type,
        priority=priority,
        attempt=attempt,
        available_at=moment(due),
        created_at=moment(created),
        owner_id=owner_id,
        context_id=context_id,
        source=source,
    )


def todo(of: Candidate | str, **columns: Any) -> Todo:
    """The row a claim of this candidate (or of a row with this id) would bring.

    >>> todo("a").attempt, todo(candidate("a", attempt=4), prompt="Hello").attempt
    (1, 5)
    """
    chosen = candidate(of) if isinstance(of, str) else of
    row: dict[str, Any] = {
        "id": chosen.id,
        "agent_type": chosen.agent_type,
        "prompt": "",
        "input_data": None,
        "agent_status": TodoStatus.IN_PROGRESS,
        "agent_output": None,
        "priority": chosen.priority,
        "created_at": chosen.created_at,
        "updated_at": None,
        "started_at": None,
        "completed_at": None,
        "available_at": chosen.available_at,
        "attempt": chosen.attempt + 1,
        "failures": 0,
        "max_failures": 3,
        "timeout_seconds": None,
        "worker_id": None,
        "cancel_requested_at": None,
        "context_id": chosen.context_id or chosen.id,
        "task_state": "TASK_STATE_WORKING",
        "idempotency_key": None,
        "owner_id": chosen.owner_id,
        "error": None,
        "seq": 1,
    }
    return Todo(**(row | columns))


def event(
    todolist_id: str,
    *,
    attempt: int = 1,
    event_type: str = "task_progress",
    data: Mapping[str, Any] | None = None,
    outcome: Outcome | None = None,
    **columns: Any,
) -> TodoEvent:
    """An event of a run; with an `outcome` its last.

    >>> event("a", outcome=Outcome("completed")).outcome.kind
    'completed'
    """
    return TodoEvent(
        todolist_id, attempt, event_type, {} if data is None else data, outcome=outcome, **columns
    )


def text_chunk(
    todolist_id: str,
    text: str,
    *,
    artifact_id: str = "answer",
    append: bool = True,
    last: bool = False,
    **columns: Any,
) -> TodoEvent:
    """A piece of an artifact's text, as a streaming agent emits it.

    >>> text_chunk("a", "Hello").event_data["artifactUpdate"]["artifact"]["parts"]
    [{'text': 'Hello'}]
    """
    update: dict[str, Any] = {
        "taskId": todolist_id,
        "contextId": todolist_id,
        "artifact": {"artifactId": artifact_id, "parts": [{"text": text}]},
    }
    if append:
        update["append"] = True
    if last:
        update["lastChunk"] = True
    return event(todolist_id, event_type="task_artifact", data={"artifactUpdate": update}, **columns)


def row_id(name: str) -> str:
    """A uuid that is always the same for a name, where one is checked.

    >>> row_id("a") == row_id("a") != row_id("b")
    True
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"row:{name}"))


def moment(seconds: float) -> datetime:
    """A point in virtual time."""
    return datetime.fromtimestamp(seconds, UTC)


def _seconds(scheduler: TestScheduler) -> float:
    return round(scheduler.to_seconds(scheduler.now), 6)


def _record(at: float, what: Notification[Any]) -> Recorded[Any]:
    if isinstance(what, OnNext):
        return ReactiveTest.on_next(cast("int", at), cast("Any", what).value)
    if isinstance(what, OnError):
        return ReactiveTest.on_error(cast("int", at), what.exception)
    return ReactiveTest.on_completed(cast("int", at))


def _message(at: float, what: Notification[Any]) -> Message:
    if isinstance(what, OnNext):
        return Message(at, "next", cast("Any", what).value)
    if isinstance(what, OnError):
        return Message(at, "error", what.exception)
    return Message(at, "completed")
