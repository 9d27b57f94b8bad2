"""What is kept of a remote task, so that a later run of the same row finds it again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from a2a.server.agent_execution import RequestContext
from a2a.types import Role

from reactive_worker.execution.numbers import to_json
from reactive_worker.execution.wire import INTERRUPTED

#: Where it is kept: in the metadata of the task, thus in the log of its events.
KEY = "remote_a2a"

_NAMESPACE = uuid.UUID("5a2f4c0e-6c55-5a0b-9e43-3c1d0a2a7b11")


@dataclass(slots=True)
class Known:
    """Ids at the remote agent. Empty until its first event has come."""

    task_id: str = ""
    context_id: str = ""
    #: The last message of ours that is known to have arrived.
    message_id: str = ""
    #: True when that task has ended or was cancelled by us: whoever runs the row again starts a new one.
    over: bool = False
    #: Counts the tasks started over; text, because A2A metadata turns numbers into floats.
    generation: str = "0"

    @classmethod
    def of(cls, context: RequestContext) -> Known:
        """Read what earlier turns and abandoned runs have kept; a task that is over counts no more."""
        kept = _kept(context)
        known = cls(
            task_id=str(kept.get("taskId") or ""),
            context_id=str(kept.get("contextId") or ""),
            message_id=str(kept.get("messageId") or ""),
            over=bool(kept.get("over")),
            generation=str(kept.get("generation") or "0"),
        )
        if known.over and not is_answer(context):
            return cls(context_id=known.context_id, generation=str(int(known.generation) + 1))
        return known

    def as_metadata(self) -> dict[str, Any]:
        """What `of` reads."""
        kept = {
            "taskId": self.task_id,
            "contextId": self.context_id,
            "messageId": self.message_id,
            "generation": self.generation,
            "over": self.over,
        }
        return {KEY: {name: value for name, value in kept.items() if value}}

    def message_id_for(self, context: RequestContext) -> str:
        """The id this turn's message has at the remote agent: the same in every run of the turn."""
        given = context.message.message_id if context.message is not None else ""
        turn = 0
        if is_answer(context) and context.current_task is not None:
            turn = sum(message.role == Role.ROLE_USER for message in context.current_task.history)
        return str(uuid.uuid5(_NAMESPACE, f"{context.task_id}/{turn}/{self.generation}/{given}"))


def local_message_id(task_id: str, remote_id: str) -> str:
    """The id a remote message has here: its own, seen again, must not look like a new one."""
    return str(uuid.uuid5(_NAMESPACE, f"{task_id}:{remote_id}")) if remote_id else str(uuid.uuid4())


def is_answer(context: RequestContext) -> bool:
    """True when this turn's message answers a question of the remote agent."""
    task = context.current_task
    return task is not None and task.status.state in INTERRUPTED


def _kept(context: RequestContext) -> Mapping[str, Any]:
    # Our worker knows what abandoned runs of this turn have said; a plain a2a server has the task only.
    metadata = context.call_context.state.get("task_metadata")
    if metadata is None and context.current_task is not None:
        metadata = to_json(context.current_task.metadata)
    kept = metadata.get(KEY) if isinstance(metadata, Mapping) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - anybody's JSON
    return cast("Mapping[str, Any]", kept) if isinstance(kept, Mapping) else {}
