"""`/storage/v1`: the routes, who may use them, and signed URLs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from reactive_worker.local.faults import Faults
from reactive_worker.local.json_text import read_json
from reactive_worker.local.keys import KeyRefusedError, Keys
from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.identity import Identities, KnownIdentity
from reactive_worker.local.rest.session import SessionPool
from reactive_worker.local.storage.database import SIGNED, StorageDatabase
from reactive_worker.local.storage.errors import StorageError, no_bucket, no_object, unsupported
from reactive_worker.local.storage.listing import entries
from reactive_worker.local.storage.listing_v2 import page
from reactive_worker.local.storage.uploads import Upload, header_metadata, read_upload

_log = logging.getLogger(__name__)

#: Characters an object's name may have, those S3 is sure to take.
_KEY = re.compile(r"[A-Za-z0-9_/!\-.*'() &$@=;:+,?]+")
#: Seconds a URL for an upload is good for.
UPLOAD_LIFE = 2 * 60 * 60

Handler = Callable[[Request], Awaitable[Response]]


class StorageApp:
    """Answers everything below ``/storage/v1``, that prefix removed.

    Parameters
    ----------
    pool:
        Sessions of the role `authenticator`.
    keys:
        The project's keys; signed URLs are signed with their secret.
    faults:
        The switch `storage_status`.
    file_size_limit:
        Most bytes of a file, whatever its bucket says.
    """

    def __init__(self, pool: SessionPool, keys: Keys, faults: Faults, file_size_limit: int) -> None:
        self._faults = faults
        self._db = StorageDatabase(pool, file_size_limit)
        self._keys = keys
        self._identities = Identities(keys.identify)
        object_path = "/{bucket}/{name:path}"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/bucket", self._list_buckets),
            ("POST", "/bucket", self._create_bucket),
            ("GET", "/bucket/{bucket}", self._get_bucket),
            ("PUT", "/bucket/{bucket}", self._update_bucket),
            ("DELETE", "/bucket/{bucket}", self._delete_bucket),
            ("POST", "/bucket/{bucket}/empty", self._empty_bucket),
            ("POST", "/object/list/{bucket}", self._list),
            ("POST", "/object/list-v2/{bucket}", self._list_v2),
            ("POST", "/object/move", self._move),
            ("POST", "/object/copy", self._copy),
            ("POST", f"/object/upload/sign{object_path}", self._sign_upload),
            ("PUT", f"/object/upload/sign{object_path}", self._signed_upload),
            ("POST", f"/object/sign{object_path}", self._sign),
            ("POST", "/object/sign/{bucket}", self._sign_many),
            ("GET", f"/object/sign{object_path}", self._signed_download),
            ("GET", f"/object/info/authenticated{object_path}", self._info),
            ("GET", f"/object/info{object_path}", self._info),
            ("GET", f"/object/public{object_path}", self._public_download),
            ("GET", f"/object/authenticated{object_path}", self._download),
            ("GET", f"/object{object_path}", self._download),
            ("POST", f"/object{object_path}", self._upload),
            ("PUT", f"/object{object_path}", self._update),
            ("DELETE", f"/object{object_path}", self._remove_one),
            ("DELETE", "/object/{bucket}", self._remove_many),
        ]
        self._app = Starlette(
            routes=[
                *(Route(path, _caught(handler), methods=[method]) for method, path, handler in routes),
                Route("/{path:path}", _caught(_not_here), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        status = self._faults.storage_status
        if status is not None:
            text = f"fault switch storage_status: every request gets {status}"
            answer = StorageError(status, "Fault", text).answer()
            answer.status_code = status
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    # -- who and what ----------------------------------------------------------------------------------------

    def _known(self, request: Request) -> KnownIdentity:
        headers = request.headers
        try:
            return self._identities.of(headers.get("authorization"), headers.get("apikey"))
        except KeyRefusedError as error:
            raise StorageError(403, "Unauthorized", error.message) from error

    def _signed(self, request: Request, kind: str) -> dict[str, Any]:
        """The claims of a token that opens the path's object."""
        bucket, name = _target(request)
        try:
            claims = self._keys.verify(request.query_params.get("token", ""))
        except KeyRefusedError as error:
            raise StorageError(400, "InvalidJWT", error.message) from error
        # Any other token of this project's secret, a user's for example, opens nothing.
        if claims.get("url") != f"{bucket}/{name}" or claims.get("use") != kind:
            raise StorageError(400, "InvalidSignature", "Invalid signature")
        return claims

    def _token(self, bucket: str, name: str, kind: str, seconds: float, **more: Any) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": int(now + seconds)}
        return self._keys.mint({"url": f"{bucket}/{name}", "use": kind, **times, **more})

    def _url(self, bucket: str, name: str, seconds: float) -> str:
        token = self._token(bucket, name, "read", seconds)
        return f"/object/sign/{quote(bucket)}/{quote(name)}?token={token}"

    # -- buckets ---------------------------------------------------------------------------------------------

    async def _list_buckets(self, request: Request) -> Response:
        return JSONResponse(await self._db.buckets(self._known(request)))

    async def _create_bucket(self, request: Request) -> Response:
        options = await _json(request)
        id = str(options.get("id") or options.get("name") or "")
        if not _KEY.fullmatch(id) or "/" in id or len(id) > 100:
            raise StorageError(400, "InvalidRequest", "Bucket name invalid")
        await self._db.create_bucket(self._known(request), id, {"public": False, **options})
        return JSONResponse({"name": id})

    async def _get_bucket(self, request: Request) -> Response:
        return JSONResponse(await self._db.bucket(self._known(request), request.path_params["bucket"]))

    async def _update_bucket(self, request: Request) -> Response:
        bucket = request.path_params["bucket"]
        await self._db.update_bucket(self._known(request), bucket, await _json(request))
        return JSONResponse({"message": "Successfully updated"})

    async def _delete_bucket(self, request: Request) -> Response:
        await self._db.delete_bucket(self._known(request), request.path_params["bucket"])
        return JSONResponse({"message": "Successfully deleted"})

    async def _empty_bucket(self, request: Request) -> Response:
        await self._db.empty_bucket(self._known(request), request.path_params["bucket"])
        return JSONResponse({"message": "Successfully emptied"})

    # -- objects ---------------------------------------------------------------------------------------------

    async def _upload(self, request: Request) -> Response:
        return await self._store(request, self._known(request), _how(request))

    async def _update(self, request: Request) -> Response:
        return await self._store(request, self._known(request), "update")

    async def _signed_upload(self, request: Request) -> Response:
        claims = self._signed(request, "write")
        how = "upsert" if claims.get("upsert") is True else "insert"
        return await self._store(request, SIGNED, how, owner=claims.get("owner"))

    async def _store(
        self, request: Request, known: KnownIdentity, how: str, *, owner: str | None = None
    ) -> Response:
        bucket, name = _target(request)
        upload = await read_upload(request)
        stored = await self._db.store(known, bucket, name, upload, how=how, owner=owner)
        return JSONResponse({"Key": f"{bucket}/{name}", "Id": stored["id"]})

    async def _download(self, request: Request) -> Response:
        return await self._content(request, self._known(request), *_target(request))

    async def _signed_download(self, request: Request) -> Response:
        self._signed(request, "read")
        return await self._content(request, SIGNED, *_target(request))

    async def _public_download(self, request: Request) -> Response:
        bucket, name = _target(request)
        if not (await self._db.bucket(SIGNED, bucket))["public"]:
            raise no_bucket()
        return await self._content(request, SIGNED, bucket, name)

    async def _content(self, request: Request, known: KnownIdentity, bucket: str, name: str) -> Response:
        found, content = await self._db.read(known, bucket, name)
        metadata: dict[str, Any] = found["metadata"] or {}
        headers = {
            "Cache-Control": str(metadata.get("cacheControl", "no-cache")),
            "ETag": str(metadata.get("eTag", "")),
            # Whatever was stored, no browser shall run it as a page of this origin.
            "X-Content-Type-Options": "nosniff",
        }
        download = request.query_params.get("download")
        if download is not None:
            file = quote(download or name.rsplit("/", 1)[-1])
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{file}"
        return Response(content, media_type=str(metadata.get("mimetype", "")) or None, headers=headers)

    async def _info(self, request: Request) -> Response:
        found = await self._db.info(self._known(request), *_target(request))
        metadata: dict[str, Any] = found.pop("metadata") or {}
        return JSONResponse(
            {
                **{name: found[name] for name in ("id", "name", "version", "bucket_id", "created_at")},
                "size": metadata.get("size"),
                "content_type": metadata.get("mimetype"),
                "cache_control": metadata.get("cacheControl"),
                "etag": metadata.get("eTag"),
                "last_modified": metadata.get("lastModified"),
                "metadata": found["user_metadata"] or {},
            }
        )

    async def _list(self, request: Request) -> Response:
        known, options = self._known(request), await _json(request)
        bucket = request.path_params["bucket"]
        prefix = str(options.get("prefix") or "").strip("/")
        prefix = f"{prefix}/" if prefix else ""
        return JSONResponse(entries(await self._db.below(known, bucket, prefix), prefix, options))

    async def _list_v2(self, request: Request) -> Response:
        known, options = self._known(request), await _json(request)
        prefix = str(options.get("prefix") or "")
        objects = await self._db.below(known, request.path_params["bucket"], prefix)
        return JSONResponse(page(objects, prefix, options))

    async def _remove_one(self, request: Request) -> Response:
        bucket, name = _target(request)
        if not await self._db.remove(self._known(request), bucket, [name]):
            raise no_object()
        return JSONResponse({"message": "Successfully deleted"})

    async def _remove_many(self, request: Request) -> Response:
        names = (await _json(request)).get("prefixes")
        if not isinstance(names, list):
            raise StorageError(400, "InvalidRequest", "prefixes must be a list of names")
        known = self._known(request)
        return JSONResponse(await self._db.remove(known, request.path_params["bucket"], names))  # pyright: ignore[reportUnknownArgumentType] - compared as texts

    async def _move(self, request: Request) -> Response:
        source, target = _from_to(await _json(request))
        await self._db.move(self._known(request), source, target)
        return JSONResponse({"message": "Successfully moved"})

    async def _copy(self, request: Request) -> Response:
        source, target = _from_to(await _json(request))
        id = await self._db.copy(self._known(request), source, target)
        return JSONResponse({"Id": id, "Key": "/".join(target)})

    # -- signed URLs -----------------------------------------------------------------------------------------

    async def _sign(self, request: Request) -> Response:
        bucket, name = _target(request)
        options = await _json(request)
        if options.get("transform"):
            raise unsupported("transform (another size or format of an image)")
        seconds = _seconds(options)
        await self._db.info(self._known(request), bucket, name)
        return JSONResponse({"signedURL": self._url(bucket, name, seconds)})

    async def _sign_many(self, request: Request) -> Response:
        bucket, options = request.path_params["bucket"], await _json(request)
        known, seconds = self._known(request), _seconds(options)
        answers: list[dict[str, Any]] = []
        for name in map(str, options.get("paths") or ()):
            try:
                await self._db.info(known, bucket, name)
            except StorageError as error:
                if error.status != 404:
                    raise
                text = "Either the object does not exist or you do not have access to it"
                answers.append({"error": text, "path": name, "signedURL": None})
            else:
                answers.append({"error": None, "path": name, "signedURL": self._url(bucket, name, seconds)})
        return JSONResponse(answers)

    async def _sign_upload(self, request: Request) -> Response:
        known, (bucket, name) = self._known(request), _target(request)
        how = _how(request)
        # What policies would say to the upload is what they say to a trial of it.
        await self._db.try_store(
            known, bucket, name, Upload(b"", "", metadata=header_metadata(request)), how=how
        )
        owner = known.identity.claims.get("sub")
        token = self._token(bucket, name, "write", UPLOAD_LIFE, owner=owner, upsert=how == "upsert")
        url = f"/object/upload/sign/{quote(bucket)}/{quote(name)}?token={token}"
        return JSONResponse({"url": url, "token": token})


def _how(request: Request) -> str:
    return "upsert" if request.headers.get("x-upsert", "").lower() == "true" else "insert"


async def _not_here(request: Request) -> Response:
    raise unsupported(f"{request.method} /storage/v1{request.url.path}")


def _caught(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except StorageError as error:
            return error.answer()
        except ApiError as error:  # The database is away, or a role is none.
            return StorageError(error.status, "DatabaseError", str(error.body["message"])).answer()
        except HTTPException as error:
            answer = StorageError(error.status_code, "RequestError", error.detail).answer()
            answer.status_code = error.status_code
            answer.headers.update(error.headers or {})
            return answer
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            _log.exception("a storage request failed: %s %s", request.method, request.url.path)
            return StorageError(500, "InternalError", "Internal Server Error: see the gateway's log").answer()

    return answer


def _target(request: Request) -> tuple[str, str]:
    return request.path_params["bucket"], _checked(request.path_params["name"])


def _checked(name: str) -> str:
    if not _KEY.fullmatch(name) or name.startswith("/") or ".." in name.split("/"):
        raise StorageError(400, "InvalidKey", f"Invalid key: {unquote(name)[:200]}")
    return name


def _from_to(options: dict[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    bucket = str(options.get("bucketId") or "")
    source, target = str(options.get("sourceKey") or ""), str(options.get("destinationKey") or "")
    other = str(options.get("destinationBucket") or bucket)
    return (bucket, _checked(source)), (other, _checked(target))


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    try:
        value: Any = read_json(body) if body else {}
    except ValueError as error:
        raise StorageError(400, "InvalidRequest", f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(400, "InvalidRequest", "the body must be a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType] - JSON keys are texts


def _seconds(options: dict[str, Any]) -> float:
    given = str(options.get("expiresIn", ""))
    if not given.isdigit() or not 0 < int(given) < 10**10:
        raise StorageError(400, "InvalidRequest", "expiresIn must be a number of seconds above 0")
    return int(given)
