"""Files a task is given, made readable for its executor."""

from __future__ import annotations

from a2a.types import SendMessageRequest

from reactive_worker.errors import PermanentFailure
from reactive_worker.execution.files import place_of
from reactive_worker.models import Todo
from reactive_worker.store.objects import FileMissingError, ObjectStore


class FileSigner:
    """Gives the files a task names in Storage a URL each, so that its executor can read them.

    The worker's key opens every bucket, so a signed-in user's task may name files of its owner only, in the
    worker's own bucket: ``<owner id>/...``. A task without an owner was made by a backend, which may read
    all.

    Parameters
    ----------
    objects:
        Where files are.
    bucket:
        The bucket of `Artifacts`; empty when there is none.
    url_life:
        Seconds the URLs are good for.
    """

    def __init__(self, objects: ObjectStore, bucket: str, *, url_life: int) -> None:
        self._objects = objects
        self._bucket = bucket
        self._url_life = url_life

    async def __call__(self, todo: Todo, request: SendMessageRequest) -> None:
        """Sign; raises PermanentFailure for a file that is not there or not the owner's."""
        for part in request.message.parts:
            place = place_of(part)
            if place is None:
                continue
            bucket, path = place
            own = bucket == self._bucket and path.startswith(f"{todo.owner_id}/")
            if todo.owner_id is not None and (not own or ".." in path.split("/")):
                where = self._bucket or "the bucket of REACTIVE_WORKER_ARTIFACTS_BUCKET"
                raise PermanentFailure(
                    f"this task may not read {bucket}/{path}: "
                    f"a signed-in user's files are below their own id in {where}"
                )
            try:
                part.url = await self._objects.sign(bucket, path, self._url_life)
            except FileMissingError as error:
                raise PermanentFailure(f"a file of this task is not there: {error}") from error
