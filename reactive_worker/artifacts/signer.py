"""Files a task is given, made readable for its executor."""

from __future__ import annotations

from collections.abc import Collection

from a2a.types import SendMessageRequest

from reactive_worker.errors import PermanentFailure
from reactive_worker.execution.files import place_of
from reactive_worker.models import Todo
from reactive_worker.store.objects import FileMissingError, ObjectStore


class FileSigner:
    """Gives the files a task names in Storage a URL each, so that its executor can read them.

    The worker's key opens every bucket, so a task may name files of its owner only, in the worker's own
    bucket: ``<owner id>/...``. A task without an owner names files of the buckets that were opened to such
    tasks: it may come from anybody, where a project lets people submit without signing in.

    Parameters
    ----------
    objects:
        Where files are.
    bucket:
        The bucket of `Artifacts`; empty when there is none.
    url_life:
        Seconds the URLs are good for.
    ownerless_buckets:
        Buckets whose files a task without an owner may name.
    """

    def __init__(
        self, objects: ObjectStore, bucket: str, *, url_life: int, ownerless_buckets: Collection[str] = ()
    ) -> None:
        self._objects = objects
        self._bucket = bucket
        self._url_life = url_life
        self._ownerless_buckets = frozenset(ownerless_buckets) - {""}

    async def __call__(self, todo: Todo, request: SendMessageRequest) -> None:
        """Sign; raises PermanentFailure for a file that is not there or that this task may not read."""
        for part in request.message.parts:
            place = place_of(part)
            if place is None:
                continue
            bucket, path = place
            if refusal := self._refusal(todo.owner_id, bucket, path):
                raise PermanentFailure(f"this task may not read {bucket}/{path}: {refusal}")
            try:
                part.url = await self._objects.sign(bucket, path, self._url_life)
            except FileMissingError as error:
                raise PermanentFailure(f"a file of this task is not there: {error}") from error

    def _refusal(self, owner_id: str | None, bucket: str, path: str) -> str | None:
        if ".." in path.split("/"):
            return "a path has no '..'"
        if owner_id is None:
            if bucket in self._ownerless_buckets:
                return None
            return (
                "it has no owner, and REACTIVE_WORKER_OWNERLESS_BUCKETS does not name that bucket; "
                "a back end says with owner_id whose task it is"
            )
        if bucket == self._bucket and path.startswith(f"{owner_id}/"):
            return None
        where = self._bucket or "the bucket of REACTIVE_WORKER_ARTIFACTS_BUCKET"
        return f"a signed-in user's files are below their own id in {where}"
