"""Supabase Storage: private buckets, files in them, and URLs that open one file for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from storage3.exceptions import StorageApiError
from storage3.utils import StorageException

from reactive_worker.errors import (
    ConfigurationError,
    DataRefusedError,
    PermissionDeniedError,
    ReactiveWorkerError,
    SupabaseError,
    UnreachableError,
)
from reactive_worker.store.connection import Connection
from reactive_worker.store.translate import is_passing, unreadable


class FileMissingError(SupabaseError):
    """There is no such file in Storage, or it belongs to somebody else."""


class ObjectStore:
    """Files in Supabase Storage, through the client of a connection.

    Every method raises UnreachableError for what may pass, PermissionDeniedError, FileMissingError, or
    SupabaseError.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ensure_private(self, bucket: str) -> None:
        """Make the bucket unless it is there.

        Raises
        ------
        ConfigurationError
            It is there and public: everybody could read results.
        """
        try:
            found = await self._ask(lambda storage: storage.get_bucket(bucket), f"look at bucket {bucket}")
        except FileMissingError:
            await self._ask(
                lambda storage: storage.create_bucket(bucket, options={"public": False}),
                f"make bucket {bucket}",
                fine="Duplicate",
            )
            return
        if found.public:
            raise ConfigurationError(
                f"the storage bucket {bucket!r} is public, so anybody could read results: "
                "make it private, or name another one"
            )

    async def put(self, bucket: str, path: str, content: bytes, media_type: str) -> None:
        """Store a file; one that is there already stays as it is."""
        await self._ask(
            lambda storage: storage.from_(bucket).upload(path, content, {"content-type": media_type}),
            f"store {bucket}/{path}",
            fine="Duplicate",
        )

    async def get(self, bucket: str, path: str) -> bytes:
        """Read a file."""
        return bytes(
            await self._ask(lambda storage: storage.from_(bucket).download(path), f"read {bucket}/{path}")
        )

    async def sign(self, bucket: str, path: str, seconds: int, *, filename: str = "") -> str:
        """A URL that opens the file for so many seconds, under a name of its own if given."""
        options = {"download": filename} if filename else {}
        answer = await self._ask(
            lambda storage: storage.from_(bucket).create_signed_url(path, seconds, options),
            f"sign {bucket}/{path}",
        )
        return str(answer["signedUrl"])

    async def _ask(self, call: Callable[[Any], Any], what: str, *, fine: str = "") -> Any:
        try:
            return await self._connection.storage(call)
        except StorageApiError as error:
            if fine and error.code == fine:
                return None
            raise _translated(error, what, self._connection.url) from error
        except (httpx.HTTPError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"cannot reach {self._connection.url} ({what}): {reason}") from error
        except StorageException as error:
            raise SupabaseError(f"{what} failed: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            # storage3 could not make sense of a good status.
            raise unreadable(self._connection.url, what) from error


def _translated(error: StorageApiError, what: str, url: str) -> ReactiveWorkerError:
    status, text = str(error.status), f"{what} was refused at {url}: {error.message}"
    if status == "404":
        return FileMissingError(text, code=status)
    if status in ("401", "403"):
        return PermissionDeniedError(f"{text}. A worker needs the service role key for it", code=status)
    if status in ("413", "415"):
        return DataRefusedError(text, code=status)
    if is_passing(status):
        return UnreachableError(text, code=status)
    return SupabaseError(text, code=status)
