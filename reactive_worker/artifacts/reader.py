"""Results read back: whatever of them lies in Supabase Storage is fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from typing import Any, cast

import httpx

from reactive_worker.artifacts.parts import Kind, Part, StoredFile, content_of, map_parts
from reactive_worker.errors import ReactiveWorkerError, SupabaseError
from reactive_worker.store.objects import OK, READ_LIMIT, ObjectStore, read_limited

_PORTS = {"http": 80, "https": 443}


class Reader:
    """Reads back what `Artifacts` has stored for one task.

    Parameters
    ----------
    objects:
        Where files are, as far as the caller's key opens them.
    task:
        Id of the task. Only its own files are read by their place: metadata is written by agents, and none of
        them may have other files read with the caller's key.
    hosts:
        Further hosts, as ``name`` or ``name:port``, whose URLs are read. URLs are written by agents, too:
        without this only those of the project's own storage are, or an agent could make the reader ask any
        machine that it can reach.
    limit:
        Bytes of one file, counted as they are once decoded.
    """

    def __init__(
        self, objects: ObjectStore, task: str, *, hosts: Collection[str] = (), limit: int = READ_LIMIT
    ) -> None:
        self._objects = objects
        self._task = task
        self._hosts = frozenset(host.lower() for host in hosts)
        self._limit = limit

    async def content(self, part: Part) -> bytes:
        """A part's content, wherever it is. Raises SupabaseError."""
        file = StoredFile.of(part)
        if file is None and "url" not in part:
            return content_of(part)
        if file is not None and file.path.startswith(f"{self._task}/") and ".." not in file.path:
            try:
                return file.check(await self._objects.get(file.bucket, file.path, limit=self._limit))
            except ReactiveWorkerError:
                # A signed-in user needs no policy on the bucket, as long as the URL is good.
                if not part.get("url"):
                    raise
        if not part.get("url"):
            raise SupabaseError("this part of the result lies elsewhere, and has no URL to read it by")
        content = await self._open(str(part["url"]))
        return content if file is None else file.check(content)

    async def _open(self, url: str) -> bytes:
        self._check(url)
        try:
            # No keys: the URL itself opens the file.
            status, content = await read_limited(url, {}, self._limit)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Not str(error): it holds the URL, and whoever has that has the file.
            raise SupabaseError(f"cannot read a file of this task: {type(error).__name__}") from None
        if status != OK:
            raise SupabaseError(f"cannot read a file of this task: HTTP {status}; its URL may have expired")
        return content

    def _check(self, url: str) -> None:
        try:
            there, own = httpx.URL(url), httpx.URL(self._objects.url)
        except httpx.InvalidURL:
            raise SupabaseError("this part of the result has a URL that is none") from None
        same = (there.scheme, there.host, there.port) == (own.scheme, own.host, own.port)
        if same and there.path.startswith("/storage/v1/object/") and ".." not in there.path:
            return
        allowed = {there.host, f"{there.host}:{there.port or _PORTS.get(there.scheme)}"} & self._hosts
        if there.scheme not in _PORTS or there.userinfo or not allowed:
            raise SupabaseError(
                f"a file of this task lies at {there.host or 'no host'}, not in this project's storage: "
                "name it in hosts= if you trust it"
            )

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
