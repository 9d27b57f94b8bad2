"""What a client does with files: give them to a task, and read results that are too large for a row."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import re
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from reactive_worker.artifacts.parts import Part
from reactive_worker.artifacts.reader import Reader
from reactive_worker.client.new_task import task_id
from reactive_worker.errors import InvalidTaskError
from reactive_worker.store.lazy import LazyStore
from reactive_worker.store.objects import ObjectStore

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")


class FilesClient:
    """The part of `TaskClient` that is about files."""

    _store: LazyStore

    async def upload_file(
        self,
        bucket: str,
        file: bytes | str | Path,
        *,
        folder: str = "inputs",
        filename: str | None = None,
        media_type: str | None = None,
    ) -> dict[str, Any]:
        """Store a file for a task, and return what to put into ``input_data["files"]``.

        The executor gets it as an A2A file part with a signed url.

        Parameters
        ----------
        bucket:
            A private bucket; that of the workers (--artifacts-bucket) when a signed-in user does this.
        file:
            Its content, or a path to it.
        folder:
            Where in the bucket; a signed-in user's own id, as a worker reads nothing else for them.
        filename, media_type:
            What the executor is told; by default those of the path.

        Raises
        ------
        InvalidTaskError
            It cannot be read, or is too large.
        SupabaseError
            Storage refused it or could not be reached.

        Example
        -------
        >>> plan = await client.upload_file("artifacts", "plan.pdf")  # doctest: +SKIP
        >>> await client.submit_task("review", "what is missing?", {"files": [plan]})  # doctest: +SKIP
        """
        name = filename or ("file" if isinstance(file, bytes) else Path(file).name)
        try:
            content = file if isinstance(file, bytes) else await asyncio.to_thread(Path(file).read_bytes)
        except OSError as error:
            raise InvalidTaskError(f"cannot read {file!s}: {error.strerror}") from None
        kind = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        path = f"{folder.strip('/')}/{uuid.uuid4()}/{_UNFIT.sub('-', name)[-100:]}"
        await (await self._objects()).put(bucket, path, content, kind)
        return {
            "bucket": bucket,
            "path": path,
            "filename": name,
            "mediaType": kind,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    async def fetch_output(self, id: str, *, hosts: Collection[str] = ()) -> Any:
        """A task's `agent_output`, with everything in it that was put into Storage.

        Parameters
        ----------
        hosts:
            Further hosts, as ``name`` or ``name:port``, whose URLs are read; without it only the project's
            own storage is, for URLs in a result are written by agents.

        Raises
        ------
        TaskNotFoundError
            There is no such task.
        SupabaseError
            A file cannot be read: it was deleted, or its URL has expired and this key opens no bucket.

        Example
        -------
        >>> (await client.fetch_output(id))["text"]  # doctest: +SKIP
        """
        todo = await (await self._store.get()).get(task_id(id))
        if not isinstance(todo.agent_output, dict):
            return todo.agent_output
        reader = Reader(await self._objects(), todo.id, hosts=hosts)
        return await reader.whole(cast("dict[str, Any]", todo.agent_output))

    async def download_artifact(
        self, id: str, artifact_id: str | None = None, *, part: int = 0, hosts: Collection[str] = ()
    ) -> bytes:
        """The content of one part of a task's result: a file's bytes, a text in UTF-8, data as JSON.

        Parameters
        ----------
        artifact_id:
            Which artifact; None for the first.
        part:
            Which of its parts, from 0.
        hosts:
            See `fetch_output`.

        Raises
        ------
        TaskNotFoundError
            There is no such task.
        InvalidTaskError
            It has no such artifact or part (yet).
        SupabaseError
            It cannot be read: see `fetch_output`.

        Example
        -------
        >>> pdf = await client.download_artifact(id, "report")  # doctest: +SKIP
        """
        todo = await (await self._store.get()).get(task_id(id))
        found = _part(todo.agent_output, artifact_id, part)
        if found is None:
            raise InvalidTaskError(
                f"task {todo.id} ({todo.agent_status}) has no "
                f"{'artifact' if artifact_id is None else f'artifact {artifact_id!r}'} with a part {part}"
            )
        return await Reader(await self._objects(), todo.id, hosts=hosts).content(found)

    async def _objects(self) -> ObjectStore:
        return ObjectStore((await self._store.get()).connection)


def _part(output: Any, artifact_id: str | None, number: int) -> Part | None:
    artifacts: Any = cast("dict[str, Any]", output).get("artifacts") if isinstance(output, dict) else None
    for artifact in cast("list[dict[str, Any]]", artifacts or []):
        if artifact_id in (None, artifact.get("artifactId")):
            parts: list[Part] = artifact.get("parts") or []
            return parts[number] if 0 <= number < len(parts) else None
    return None
