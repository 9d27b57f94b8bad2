"""What became of a message to a running agent, as its sender hears it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from reactive_worker.client.follow import follow_events
from reactive_worker.models import TERMINAL_EVENTS, EventType, TodoEvent
from reactive_worker.store.store import TodoStore

#: ``sent``: stored, the worker is told. ``accepted``: the agent listens. ``applied``: it has dealt with it.
#: ``refused``: it will not; `reason` says why.
SteerState = Literal["sent", "accepted", "applied", "refused"]

_STATES: dict[str, SteerState] = {
    EventType.STEER_ACCEPTED: "accepted",
    EventType.STEER_APPLIED: "applied",
    EventType.STEER_REFUSED: "refused",
}


@dataclass(frozen=True, slots=True)
class SteerResult:
    """How far a message to a running agent has come."""

    #: Id of the message.
    id: str
    state: SteerState
    reason: str | None = None


async def follow_steering(
    store: TodoStore, todolist_id: str, sent: SteerResult, *, after: int, timeout: float
) -> SteerResult:
    """Follow the task's log until the message is applied or refused, at most `timeout` seconds."""
    result = sent
    try:
        async with (
            asyncio.timeout(timeout),
            aclosing(follow_events(store, todolist_id, after=after)) as events,
        ):
            async for event in events:
                result = _next(result, event)
                if result.state in ("applied", "refused"):
                    break
    except TimeoutError:
        pass  # As far as it has come: it goes on without us.
    return result


def _next(result: SteerResult, event: TodoEvent) -> SteerResult:
    steer = event.event_data.get("steer")
    if event.event_type in _STATES and steer is not None and steer.get("messageId") == result.id:
        return replace(result, state=_STATES[event.event_type], reason=steer.get("reason"))
    if event.event_type in TERMINAL_EVENTS:
        return replace(result, state="refused", reason="the task ended before the agent got to it")
    return result
