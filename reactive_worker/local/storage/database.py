"""Buckets and objects in PostgreSQL: each request is one transaction, under the role its key stands for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from reactive_worker.local.keys import SERVICE_ROLE, Identity
from reactive_worker.local.project import size_in_bytes
from reactive_worker.local.rest.errors import DatabaseError
from reactive_worker.local.rest.identity import KnownIdentity
from reactive_worker.local.rest.session import Command, Row, SessionPool
from reactive_worker.local.storage.errors import StorageError, from_database, no_bucket, no_object
from reactive_worker.local.storage.uploads import Upload

#: For what a signed URL opens: whoever signed it was allowed to.
SIGNED = KnownIdentity(Identity(SERVICE_ROLE, {}), json.dumps({"role": SERVICE_ROLE}), float("inf"))

_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:gb|mb|kb|b)", re.IGNORECASE)
_SETTINGS = (
    "select pg_catalog.set_config('role', $1, true), pg_catalog.set_config('request.jwt.claims', $2, true),"
    " pg_catalog.set_config('search_path', '', true)"
)
_BUCKET = (
    "jsonb_build_object('id', b.id, 'name', b.name, 'owner', coalesce(b.owner_id, ''), 'public', b.public,"
    " 'file_size_limit', b.file_size_limit, 'allowed_mime_types', b.allowed_mime_types,"
    " 'created_at', b.created_at, 'updated_at', b.updated_at)"
)
_OBJECT = (
    "jsonb_build_object('id', o.id, 'bucket_id', o.bucket_id, 'name', o.name, 'owner', o.owner,"
    " 'owner_id', o.owner_id, 'version', o.version, 'created_at', o.created_at, 'updated_at', o.updated_at,"
    " 'last_accessed_at', o.last_accessed_at, 'metadata', o.metadata, 'user_metadata', o.user_metadata)"
)


class StorageDatabase:
    """What the storage server asks PostgreSQL.

    Every method raises StorageError; `known` is who asks.

    Parameters
    ----------
    pool:
        Sessions of the role `authenticator`.
    file_size_limit:
        Most bytes of a file, whatever its bucket says.
    """

    def __init__(self, pool: SessionPool, file_size_limit: int) -> None:
        self._pool = pool
        self._file_size_limit = file_size_limit

    # -- buckets ---------------------------------------------------------------------------------------------

    async def buckets(self, known: KnownIdentity, id: str | None = None) -> list[dict[str, Any]]:
        """All buckets, or the one of this id."""
        where = "" if id is None else " where b.id = $1"
        return await self._all(
            known,
            f"select {_BUCKET} from storage.buckets b{where} order by b.id",
            *([] if id is None else [id]),
        )

    async def bucket(self, known: KnownIdentity, id: str) -> dict[str, Any]:
        """One bucket."""
        found = await self.buckets(known, id)
        if not found:
            raise no_bucket()
        return found[0]

    async def create_bucket(self, known: KnownIdentity, id: str, options: dict[str, Any]) -> None:
        """Make a bucket."""
        await self._run(
            known,
            "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types, owner_id)"
            " values ($1, $2, $3::boolean, $4::bigint, $5::text[], $6)",
            id,
            str(options.get("name") or id),
            *_bucket_options(options),
            known.identity.claims.get("sub"),
        )

    async def update_bucket(self, known: KnownIdentity, id: str, options: dict[str, Any]) -> None:
        """Change a bucket's options; those not given stay."""
        rows = await self._run(
            known,
            "update storage.buckets set public = coalesce($2::boolean, public),"
            " file_size_limit = coalesce($3::bigint, file_size_limit),"
            " allowed_mime_types = coalesce($4::text[], allowed_mime_types), updated_at = now()"
            " where id = $1 returning 1",
            id,
            *_bucket_options(options),
        )
        if not rows:
            raise no_bucket()

    async def empty_bucket(self, known: KnownIdentity, id: str) -> None:
        """Remove all of a bucket's objects."""
        await self.bucket(known, id)
        await self._run(known, "delete from storage.objects where bucket_id = $1", id)

    async def delete_bucket(self, known: KnownIdentity, id: str) -> None:
        """Remove an empty bucket."""
        if not await self._run(known, "delete from storage.buckets where id = $1 returning 1", id):
            raise no_bucket()

    # -- objects ---------------------------------------------------------------------------------------------

    async def try_store(
        self, known: KnownIdentity, bucket: str, name: str, upload: Upload, *, how: str
    ) -> None:
        """Find out whether an upload would be allowed, and leave nothing behind."""
        await self.bucket(SIGNED, bucket)
        statement, values = _storing(known, bucket, name, upload, how, None)
        with contextlib.suppress(_Allowed):
            await self._run(known, statement, *values, check=_allowed)

    async def store(
        self,
        known: KnownIdentity,
        bucket: str,
        name: str,
        upload: Upload,
        *,
        how: str,
        owner: str | None = None,
    ) -> dict[str, Any]:
        """Store an object.

        Parameters
        ----------
        how:
            ``insert``, ``upsert`` or ``update``.
        owner:
            Whose it is; None: of who asks.
        """
        limits = await self.bucket(SIGNED, bucket)
        size, kind = len(upload.content), upload.media_type.split(";")[0].strip()
        bucket_limit = limits["file_size_limit"]
        if size > min(self._file_size_limit, self._file_size_limit if bucket_limit is None else bucket_limit):
            raise StorageError(413, "Payload too large", "The object exceeded the maximum allowed size")
        allowed = limits["allowed_mime_types"]
        if allowed and kind not in allowed and f"{kind.split('/')[0]}/*" not in allowed:
            raise StorageError(415, "invalid_mime_type", f"mime type {kind} is not supported")
        statement, values = _storing(known, bucket, name, upload, how, owner)
        rows = await self._all(known, statement, *values)
        if not rows:
            raise no_object()
        return rows[0]

    async def info(self, known: KnownIdentity, bucket: str, name: str) -> dict[str, Any]:
        """An object without its bytes."""
        found = await self._all(
            known,
            f"select {_OBJECT} from storage.objects o where o.bucket_id = $1 and o.name = $2",
            bucket,
            name,
        )
        if not found:
            raise no_object()
        return found[0]

    async def read(self, known: KnownIdentity, bucket: str, name: str) -> tuple[dict[str, Any], bytes]:
        """An object and its bytes."""
        rows = await self._run(
            known,
            f"select {_OBJECT}, o.content from storage.objects o where o.bucket_id = $1 and o.name = $2",
            bucket,
            name,
        )
        if not rows:
            raise no_object()
        return json.loads(rows[0][0] or b"null"), bytes.fromhex((rows[0][1] or b"\\x")[2:].decode())

    async def below(self, known: KnownIdentity, bucket: str, prefix: str) -> list[dict[str, Any]]:
        """All objects whose name begins with `prefix`."""
        return await self._all(
            known,
            f"select {_OBJECT} from storage.objects o"
            " where o.bucket_id = $1 and pg_catalog.starts_with(o.name, $2) order by o.name",
            bucket,
            prefix,
        )

    async def remove(self, known: KnownIdentity, bucket: str, names: list[str]) -> list[dict[str, Any]]:
        """Remove objects; returns those that were there."""
        return await self._all(
            known,
            "delete from storage.objects o where o.bucket_id = $1"
            f" and o.name in (select pg_catalog.jsonb_array_elements_text($2::jsonb)) returning {_OBJECT}",
            bucket,
            json.dumps(names),
        )

    async def move(self, known: KnownIdentity, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Give an object another name."""
        rows = await self._run(
            known,
            "update storage.objects set bucket_id = $3, name = $4, updated_at = now()"
            " where bucket_id = $1 and name = $2 returning 1",
            *source,
            *target,
        )
        if not rows:
            raise no_object()

    async def copy(self, known: KnownIdentity, source: tuple[str, str], target: tuple[str, str]) -> str:
        """Copy an object; returns the new one's id."""
        rows = await self._run(
            known,
            "insert into storage.objects"
            " (bucket_id, name, owner_id, metadata, user_metadata, version, content)"
            " select $3, $4, $5, o.metadata, o.user_metadata, gen_random_uuid()::text, o.content"
            " from storage.objects o where o.bucket_id = $1 and o.name = $2 returning id",
            *source,
            *target,
            known.identity.claims.get("sub"),
        )
        if not rows:
            raise no_object()
        return (rows[0][0] or b"").decode()

    # -- asking ----------------------------------------------------------------------------------------------

    async def _all(self, known: KnownIdentity, sql: str, *values: str | None) -> list[dict[str, Any]]:
        return [json.loads(row[0] or b"null") for row in await self._run(known, sql, *values)]

    async def _run(
        self,
        known: KnownIdentity,
        sql: str,
        *values: str | None,
        check: Callable[[Row], None] | None = None,
    ) -> list[Row]:
        settings = Command(_SETTINGS, (known.identity.role, known.claims_text))
        try:
            async with self._pool.session() as session:
                return await session.run((settings, Command(sql, values)), check)
        except DatabaseError as error:
            raise from_database(error) from error


def _storing(
    known: KnownIdentity, bucket: str, name: str, upload: Upload, how: str, owner: str | None
) -> tuple[str, tuple[str | None, ...]]:
    """The statement that stores an object, and its values."""
    now = datetime.now(UTC).isoformat()
    metadata = {
        "eTag": f'"{hashlib.md5(upload.content, usedforsecurity=False).hexdigest()}"',
        "size": len(upload.content),
        "mimetype": upload.media_type,
        "cacheControl": upload.cache_control,
        "lastModified": now,
        "contentLength": len(upload.content),
        "httpStatusCode": 200,
    }
    values = (
        bucket,
        name,
        owner or known.identity.claims.get("sub"),
        json.dumps(metadata),
        None if upload.metadata is None else json.dumps(upload.metadata),
        str(uuid.uuid4()),
        "\\x" + upload.content.hex(),
    )
    replace = (
        "owner_id = $3, metadata = $4::jsonb, user_metadata = $5::jsonb, version = $6,"
        " content = $7::bytea, updated_at = now()"
    )
    if how == "update":
        statement = f"update storage.objects o set {replace} where o.bucket_id = $1 and o.name = $2"
    else:
        statement = (
            "insert into storage.objects as o"
            " (bucket_id, name, owner_id, metadata, user_metadata, version, content)"
            " values ($1, $2, $3, $4::jsonb, $5::jsonb, $6, $7::bytea)"
        )
        if how == "upsert":
            statement += f" on conflict (bucket_id, name) do update set {replace}"
    return f"{statement} returning {_OBJECT}", values


class _Allowed(Exception):
    """Rolls a trial back."""


def _allowed(_: Row) -> None:
    raise _Allowed


def _bucket_options(options: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    public, limit, kinds = (options.get(n) for n in ("public", "file_size_limit", "allowed_mime_types"))
    if limit is not None:
        # The storage server knows decimal units only.
        limit = None if isinstance(limit, str) and not _SIZE.fullmatch(limit) else size_in_bytes(limit)
        if limit is None:
            raise StorageError(400, "InvalidRequest", "Invalid file size format: a number of bytes, or 50MB")
    return (
        None if public is None else str(bool(public)).lower(),
        None if limit is None else str(limit),
        None if kinds is None else "{" + ",".join(json.dumps(str(kind)) for kind in kinds) + "}",
    )
