"""Results read back: whatever of them lies in Supabase Storage is fetched."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import httpx

from reactive_worker.artifacts.parts import Kind, Part, StoredFile, content_of, map_parts
from reactive_worker.errors import ReactiveWorkerError, SupabaseError
from reactive_worker.store.objects import ObjectStore


class Reader:
    """Reads back what `Artifacts` has stored for one task.

    Parameters
    ----------
    objects:
        Where files are, as far as the caller's key opens them.
    task:
        Id of the task. Only its own files are read by their place: metadata is written by agents, and none of
        them may have other files read with the caller's key.
    """

    def __init__(self, objects: ObjectStore, task: str) -> None:
        self._objects = objects
        self._task = task

    async def content(self, part: Part) -> bytes:
        """A part's content, wherever it is. Raises SupabaseError."""
        file = StoredFile.of(part)
        if file is None and "url" not in part:
            return content_of(part)
        if file is not None and file.path.startswith(f"{self._task}/") and ".." not in file.path:
            try:
                return file.check(await self._objects.get(file.bucket, file.path))
            except ReactiveWorkerError:
                # A signed-in user needs no policy on the bucket, as long as the URL is good.
                if not part.get("url"):
                    raise
        if not part.get("url"):
            raise SupabaseError("this part of the result lies elsewhere, and has no URL to read it by")
        content = await _open(str(part["url"]))
        return content if file is None else file.check(content)

    async def whole(self, output: dict[str, Any]) -> dict[str, Any]:
        """A result as it would be if it were small: everything is in it again."""

        async def restored(part: Part) -> Part:
            file = StoredFile.of(part)
            if file is None:
                return part
            content = await self.content(part)
            metadata = {name: value for name, value in part["metadata"].items() if name != "storage"}
            rest = {name: value for name, value in part.items() if name not in ("url", "metadata")}
            return {
                **rest,
                **({"metadata": metadata} if metadata else {}),
                file.kind: _as(file.kind, content),
            }

        output = dict(await map_parts(output, restored))
        text_part: Any = output.pop("textPart", None)
        if isinstance(text_part, dict):
            output["text"] = (await self.content(cast("Part", text_part))).decode()
        return output


def _as(kind: Kind, content: bytes) -> Any:
    if kind == "raw":
        return base64.b64encode(content).decode()
    return content.decode() if kind == "text" else json.loads(content)


async def _open(url: str) -> bytes:
    try:
        async with httpx.AsyncClient(timeout=60.0) as http:
            answer = await http.get(url)
            answer.raise_for_status()
            return answer.content
    except httpx.HTTPError as error:
        # Not str(error): it holds the URL, and whoever has that has the file.
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        why = f"HTTP {status}; its URL may have expired" if status else type(error).__name__
        raise SupabaseError(f"cannot read a file of this task: {why}") from None
