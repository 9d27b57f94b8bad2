"""Supabase Storage: private buckets, files in them, and URLs that open one file for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

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

OK = 200
#: Most bytes of one file that are read into memory. Hosted projects take files of 50 MB, unless told so.
READ_LIMIT = 512 * 1024 * 1024


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

    @property
    def url(self) -> str:
        """The project's URL."""
        return self._connection.url

    async def get(self, bucket: str, path: str, *, limit: int = READ_LIMIT) -> bytes:
        """Read a file of at most `limit` bytes, counted as they are once decoded."""
        what = f"read {bucket}/{path}"
        place = "/".join(quote(part, safe="") for part in (bucket, *path.split("/")))
        url = f"{self._connection.url}/storage/v1/object/{place}"
        try:
            status, content = await read_limited(url, self._connection.credentials.headers(), limit)
        except (httpx.HTTPError, OSError) as error:
            raise _unreachable(self._connection.url, what, error) from error
        if status == OK:
            return content
        raise _translated(_told(content, status), what, self._connection.url)

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
            raise _unreachable(self._connection.url, what, error) from error
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


async def read_limited(url: str, headers: Mapping[str, str], limit: int) -> tuple[int, bytes]:
    """Status and content of a URL; redirects are not followed, so that no key goes anywhere else.

    Bytes are counted as they come out of decompression: 300 kB of gzip can be 300 MB.

    Raises
    ------
    DataRefusedError
        There are more than `limit` bytes.
    httpx.HTTPError
        It cannot be reached.
    """
    content = bytearray()
    async with (
        httpx.AsyncClient(timeout=60.0, follow_redirects=False) as http,
        http.stream("GET", url, headers=dict(headers)) as answer,
    ):
        async for piece in answer.aiter_bytes(64 * 1024):
            content += piece
            if len(content) > limit:
                raise DataRefusedError(f"a file is larger than {limit} bytes and was not read on")
    return answer.status_code, bytes(content)


def _unreachable(url: str, what: str, error: Exception) -> UnreachableError:
    return UnreachableError(f"cannot reach {url} ({what}): {str(error) or type(error).__name__}")


def _told(content: bytes, status: int) -> StorageApiError:
    """What a refusal of the storage server says; its own status is in the body."""
    try:
        body = json.loads(content)
        return StorageApiError(str(body["message"]), str(body["error"]), body["statusCode"])
    except (ValueError, KeyError, TypeError):
        return StorageApiError(f"HTTP {status}", "InternalError", status)
