"""Large results leave the row: files in a private bucket, and parts that say where they are.

An A2A part whose bytes, text or data are too large for a row becomes a part with a `url`, signed for a while,
and with the place of the file in its metadata, by which it can be read for as long as it exists::

    {"url": "https://...", "filename": "plan.pdf", "mediaType": "application/pdf", "metadata":
     {"storage": {"bucket", "path", "size", "sha256", "kind": "raw" | "text" | "data"}}}

The path is made of the task's id and the content's hash: storing the same again stores nothing, so that
events may be delivered as often as it takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from reactive_worker.artifacts.parts import EXCERPT, MEDIA_TYPES, Part, content_of, excerpt, map_parts
from reactive_worker.models import TodoEvent
from reactive_worker.store.objects import ObjectStore

#: Bytes of one event and of all artifacts of a run where they may leave the row. Hosted projects take files
#: of 50 MB, until they are told otherwise.
EVENT_LIMIT, OUTPUT_LIMIT = 45 * 1024 * 1024, 128 * 1024 * 1024
#: Parts smaller than this stay in the row even if the whole of it is too large.
_WORTH_IT = 4 * 1024
#: Files remembered as stored.
_REMEMBERED = 1_000

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(?:; ?[\w.+-]+=[\w.+\"-]+)*")


class Artifacts:
    """Takes what is too large out of events and results.

    Parameters
    ----------
    objects:
        Where files go.
    bucket:
        The private bucket.
    limit:
        Bytes a part, and a result altogether, may have in the row. Files (`raw` parts) always leave it.
    url_life:
        Seconds the URLs are good for.
    """

    def __init__(self, objects: ObjectStore, bucket: str, *, limit: int, url_life: int) -> None:
        self._objects = objects
        self._bucket = bucket
        self._limit = limit
        self._url_life = url_life
        self._stored: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def prepare(self) -> None:
        """Make the bucket if it is not there; raises ConfigurationError when it is public."""
        await self._objects.ensure_private(self._bucket)

    async def offload(self, events: Sequence[TodoEvent]) -> list[TodoEvent]:
        """The same events, with everything large in the bucket. Raises what `ObjectStore` raises."""
        return list(await asyncio.gather(*(self._event(event) for event in events)))

    async def _event(self, event: TodoEvent) -> TodoEvent:
        task = event.todolist_id

        async def smaller(part: Part) -> Part:
            return await self._part(task, part, self._limit)

        data = await map_parts(event.event_data, smaller)
        message, outcome = event.message, event.outcome
        if message is not None and data is not event.event_data and len(message) > EXCERPT:
            message = excerpt(message)
        if outcome is not None and isinstance(outcome.output, dict):
            output = await self._output(task, cast("dict[str, Any]", outcome.output))
            outcome = replace(outcome, output=output)
        if data is event.event_data and outcome is event.outcome:
            return event
        return replace(event, event_data=data, message=message, outcome=outcome)

    async def _output(self, task: str, output: dict[str, Any]) -> dict[str, Any]:
        for limit in (self._limit, min(self._limit, _WORTH_IT)):

            async def smaller(part: Part, limit: int = limit) -> Part:
                return await self._part(task, part, limit)

            output = await map_parts(output, smaller)
            text: Any = output.get("text")
            if (
                isinstance(text, str)
                and "textPart" not in output
                and len(text.encode("utf-8", "replace")) > limit
            ):
                whole = await self._part(task, {"text": text}, limit)
                output = {**output, "text": excerpt(text), "textPart": whole}
            if _size(output) <= self._limit:
                break
        return output

    async def _part(self, task: str, part: Part, limit: int) -> Part:
        kind = next((kind for kind in MEDIA_TYPES if kind in part), None)
        if kind is None:
            return part
        content = content_of(part)
        if kind != "raw" and len(content) <= limit:
            return part
        sha256 = hashlib.sha256(content).hexdigest()
        media_type = str(part.get("mediaType") or "")
        if not _MEDIA_TYPE.fullmatch(media_type):
            media_type = MEDIA_TYPES[kind]
        path = f"{task}/{sha256}"
        place = {
            "bucket": self._bucket,
            "path": path,
            "size": len(content),
            "sha256": sha256,
            "kind": kind,
        }
        url = await self._store(path, content, media_type, str(part.get("filename") or ""))
        rest = {name: value for name, value in part.items() if name != kind}
        return {
            **rest,
            "url": url,
            "mediaType": media_type,
            "metadata": {**(part.get("metadata") or {}), "storage": place},
        }

    async def _store(self, path: str, content: bytes, media_type: str, filename: str) -> str:
        known = self._stored.get((path, filename))
        if known is not None:
            return known
        await self._objects.put(self._bucket, path, content, media_type)
        url = await self._objects.sign(self._bucket, path, self._url_life, filename=filename)
        self._stored[path, filename] = url
        if len(self._stored) > _REMEMBERED:
            self._stored.popitem(last=False)
        return url


def _size(output: Mapping[str, Any]) -> int:
    return len(json.dumps(output, ensure_ascii=False).encode("utf-8", "replace"))
