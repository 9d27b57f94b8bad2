"""Messages that reach an executor while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from a2a.helpers import get_message_text
from a2a.types import Message

from reactive_worker.execution.wire import as_json, data_of
from reactive_worker.models import TERMINAL_STATUSES, EventType, OutcomeKind

_logger = logging.getLogger(__name__)

#: Seconds a message waits for an executor to begin listening, before it is refused.
PATIENCE = 5.0

Note = Callable[[EventType, "SteerMessage", str | None], None]


@dataclass(frozen=True, slots=True)
class SteerMessage:
    """What somebody says to a running agent."""

    id: str
    #: The whole A2A message.
    message: Message
    #: True when an earlier run has said that it arrived.
    accepted: bool = False
    #: The message as JSON, as it was sent; None: as `message` says.
    raw: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """Its text parts, joined by newlines."""
        return get_message_text(self.message)

    @property
    def data(self) -> tuple[Any, ...]:
        """Its data parts as JSON, with numbers as they were sent."""
        return data_of(as_json(self.message) if self.raw is None else self.raw)


def noted(record: Callable[[EventType, Mapping[str, Any], str | None], None]) -> Note:
    """Say what becomes of a message as the log says it: ``{"steer": {"messageId", "message", "reason"}}``."""

    def note(kind: EventType, message: SteerMessage, why: str | None) -> None:
        steer: dict[str, Any] = {"messageId": message.id}
        if why is not None:
            steer["reason"] = why
        if kind is EventType.STEER_ACCEPTED:
            steer["message"] = as_json(message.message) if message.raw is None else dict(message.raw)
        record(kind, {"steer": steer}, why or message.text)

    return note


class Steering:
    """The messages of one run: handed to the executor in order, each once, and each accounted for.

    All methods belong on the event loop, but `conclude`.

    Parameters
    ----------
    note:
        Puts an event about a message into the task's log.
    patience:
        Seconds a message waits for an executor that does not listen yet; default `PATIENCE`.
    """

    def __init__(
        self, note: Note = lambda kind, message, why: None, *, patience: float | None = None
    ) -> None:
        self._note = note
        self._patience = PATIENCE if patience is None else patience
        self._seen: set[str] = set()
        self._waiting: deque[SteerMessage] = deque()
        self._handed: SteerMessage | None = None
        self._offered = False
        self._closed = False
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def offer(self) -> AsyncIterator[SteerMessage]:
        """The executor listens from now on: what waits and what comes is accepted."""
        if not self._offered:
            self._offered = True
            self._stop_timer()
            for message in list(self._waiting):
                self._accept(message)
        return self._messages()

    def deliver(self, messages: Collection[SteerMessage]) -> None:
        """Messages have arrived; those known already are left out."""
        for message in messages:
            if message.id in self._seen or self._closed:
                continue
            self._seen.add(message.id)
            self._waiting.append(message)
            if self._offered:
                self._accept(message)
                self._wake.set()
            elif self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._patience, self._refuse_all)

    def refuse(self, id: str, why: str) -> None:
        """A message has arrived that nobody can read: it alone is refused, with the reason."""
        if id in self._seen or self._closed:
            return
        self._seen.add(id)
        self._note(EventType.STEER_REFUSED, SteerMessage(id, Message()), why)

    def conclude(self, kind: OutcomeKind, note: Note) -> None:
        """The run is about to end like this; `note` records just before its last event.

        What the executor was handed counts as applied when it ended well. What it was not, is refused when
        nothing follows, and left for the next run otherwise.
        """
        handed, self._handed = self._handed, None
        if handed is not None and kind in ("completed", "input_required"):
            note(EventType.STEER_APPLIED, handed, None)
            handed = None
        if kind in TERMINAL_STATUSES:
            left = [handed] if handed is not None else []
            while self._waiting:
                left.append(self._waiting.popleft())
            for message in left:
                note(EventType.STEER_REFUSED, message, "the task ended before the agent got to it")

    def close(self) -> None:
        """The run is over: whoever still listens hears no more."""
        self._closed = True
        self._stop_timer()
        self._wake.set()

    async def _messages(self) -> AsyncIterator[SteerMessage]:
        try:
            while True:
                # Asking for the next one says that the one before has been dealt with.
                if self._handed is not None:
                    done, self._handed = self._handed, None
                    self._note(EventType.STEER_APPLIED, done, None)
                while not self._waiting:
                    if self._closed:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                self._handed = self._waiting.popleft()
                yield self._handed
        finally:
            # It left the loop: what comes now must not be called accepted.
            self._offered = False

    def _accept(self, message: SteerMessage) -> None:
        if not message.accepted:
            self._note(EventType.STEER_ACCEPTED, message, None)

    def _refuse_all(self) -> None:
        self._timer = None
        while self._waiting:
            message = self._waiting.popleft()
            self._note(EventType.STEER_REFUSED, message, "this agent cannot be steered")
            _logger.info("a message to a running task was refused: its executor does not offer steering")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
