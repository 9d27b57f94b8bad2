"""Adjacent text chunks of one artifact are one event: tokens arrive by the thousand, rows should not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from reactive_worker.models import TodoEvent
from reactive_worker.streams._items import Item

#: The most UTF-8 bytes of text in a merged chunk: a row that size still passes through Realtime.
MAX_TEXT_BYTES = 64 * 1024

_Json = Mapping[str, Any]

# What a chunk may carry and still be nothing but text. Anything else (metadata, extensions, file or data
# parts) is meant for somebody and is left as it is.
_UPDATE_KEYS = frozenset({"taskId", "contextId", "artifact", "append", "lastChunk"})
_ARTIFACT_KEYS = frozenset({"artifactId", "name", "description", "parts"})


def merge_chunks(events: Iterable[TodoEvent], max_bytes: int = MAX_TEXT_BYTES) -> list[TodoEvent]:
    """Merge each artifact text chunk into the one before it, where that changes nothing for a reader.

    ::

        events  t1:"He"  t2:"a"  t1:+"ll"  t1:status  t1:+"o"  t2:+"b"
        merged  t1:"Hell"  t2:"ab"  t1:status  t1:+"o"

    Two chunks merge when they are neighbours among the events of their task (other tasks may speak between),
    the second appends to the same artifact, and both are one text part without metadata. The order of a
    task's events stays; a merged event has the id of its first chunk.

    Parameters
    ----------
    events:
        Events as the runner emits them; `event_data` is an A2A StreamResponse as JSON.
    max_bytes:
        The most UTF-8 bytes of text in a merged event.

    Returns
    -------
    The events, fewer or as many.

    Example
    -------
    >>> def chunk(text, append=True):
    ...     artifact = {"artifactId": "a", "parts": [{"text": text}]}
    ...     data = {"artifactUpdate": {"taskId": "1", "artifact": artifact, "append": append}}
    ...     return TodoEvent("1", 1, "task_artifact", data)
    >>> [merged] = merge_chunks([chunk("Hel", append=False), chunk("lo")])
    >>> merged.event_data["artifactUpdate"]["artifact"]["parts"]
    [{'text': 'Hello'}]
    """
    merged = take_merged(deque(Item(event) for event in events), None, max_bytes=max_bytes)
    return [item.event for item in merged]


def take_merged(
    queue: deque[Item],
    rows: int | None,
    size: int | None = None,
    *,
    max_bytes: int = MAX_TEXT_BYTES,
    merge: bool = True,
) -> list[Item]:
    """Take events off the left of `queue`, merged, until one more would be too many or too much.

    It takes one at least, and stops at the first event that does not fit, so what stays is in order behind
    what was taken. A merged event weighs what its pieces weighed.
    """
    groups: list[_Group] = []
    latest: dict[tuple[str, int], _Group] = {}
    taken = 0
    while queue:
        event, weight = queue[0]
        if groups and size is not None and taken + weight > size:
            break
        chunk = _Chunk.read(event) if merge else None
        before = latest.get((event.todolist_id, event.attempt))
        if before is None or not before.accepts(event, chunk, max_bytes):
            if rows is not None and len(groups) >= rows:
                break
            before = _Group()
            groups.append(before)
            latest[(event.todolist_id, event.attempt)] = before
        before.add(event, chunk, weight)
        taken += weight
        queue.popleft()
    return [Item(group.merged(), group.weight) for group in groups]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """An event that is one piece of artifact text and nothing else."""

    update: _Json
    artifact: _Json
    text: str
    size: int

    @classmethod
    def read(cls, event: TodoEvent) -> _Chunk | None:
        update = _object(event.event_data.get("artifactUpdate"))
        if event.outcome is not None or len(event.event_data) != 1 or not update.keys() <= _UPDATE_KEYS:
            return None
        artifact = _object(update.get("artifact"))
        parts = artifact.get("parts")
        if not artifact.keys() <= _ARTIFACT_KEYS or not isinstance(parts, list):
            return None
        if len(cast("list[object]", parts)) != 1:
            return None
        part = _object(cast("list[object]", parts)[0])
        text = part.get("text")
        if len(part) != 1 or not isinstance(text, str):
            return None
        # Lone surrogates are the store's problem, not a reason to fail here.
        return cls(update, artifact, text, len(text.encode("utf-8", "surrogatepass")))

    def continues(self, before: _Chunk) -> bool:
        return (
            self.update.get("append") is True
            and before.update.get("lastChunk") is not True
            and self.update.get("taskId") == before.update.get("taskId")
            and self.update.get("contextId") == before.update.get("contextId")
            and self.artifact.get("artifactId") == before.artifact.get("artifactId")
            and all(
                self.artifact.get(key) in (None, before.artifact.get(key)) for key in ("name", "description")
            )
        )


@dataclass(slots=True)
class _Group:
    """Neighbouring events of one task that become one."""

    events: list[TodoEvent] = field(default_factory=list[TodoEvent])
    chunks: list[_Chunk] = field(default_factory=list[_Chunk])
    size: int = 0
    weight: int = 0

    @property
    def _message_is_text(self) -> bool:
        """Whether `message` repeats the text, as the first event says: the whole group must do the same."""
        return self.events[0].message == self.chunks[0].text

    def accepts(self, event: TodoEvent, chunk: _Chunk | None, max_bytes: int) -> bool:
        if chunk is None or not self.chunks:
            return False
        last = self.events[-1]
        return (
            self.size + chunk.size <= max_bytes
            and chunk.continues(self.chunks[-1])
            and event.event_type == last.event_type
            and event.context_id == last.context_id
            and event.task_id == last.task_id
            and event.message == (chunk.text if self._message_is_text else last.message)
        )

    def add(self, event: TodoEvent, chunk: _Chunk | None, weight: int) -> None:
        self.events.append(event)
        self.weight += weight
        if chunk is not None:
            self.chunks.append(chunk)
            self.size += chunk.size

    def merged(self) -> TodoEvent:
        first, last = self.events[0], self.events[-1]
        if len(self.events) == 1:
            return first
        text = "".join(chunk.text for chunk in self.chunks)
        update = dict(self.chunks[0].update)
        update["artifact"] = {**self.chunks[0].artifact, "parts": [{"text": text}]}
        if "lastChunk" in self.chunks[-1].update:
            update["lastChunk"] = self.chunks[-1].update["lastChunk"]
        return replace(
            first,
            event_data={"artifactUpdate": update},
            message=text if self._message_is_text else first.message,
            task_state=last.task_state or first.task_state,
        )


def _object(value: object) -> _Json:
    return cast("_Json", value) if isinstance(value, Mapping) else {}
