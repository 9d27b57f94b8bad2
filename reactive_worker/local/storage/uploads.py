"""What an upload brings: a form with a file, or the file itself as the body."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from starlette.requests import Request

from reactive_worker.local.json_text import read_json
from reactive_worker.local.storage.errors import StorageError

DEFAULT_TYPE = "text/plain;charset=UTF-8"
_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_NAME = re.compile(r'(?<![\w])name="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Upload:
    """A file as it was sent."""

    content: bytes
    media_type: str
    cache_control: str = "no-cache"
    metadata: dict[str, object] | None = field(default=None)


async def read_upload(request: Request) -> Upload:
    """Read the body of an upload; raises StorageError."""
    body = await request.body()
    kind = request.headers.get("content-type", DEFAULT_TYPE)
    if not kind.lower().startswith("multipart/form-data"):
        cache = request.headers.get("cache-control", "no-cache")
        return Upload(body, kind, cache, header_metadata(request))
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        raise StorageError(400, "InvalidRequest", "the form has no boundary")
    fields: dict[str, str] = {}
    file: tuple[bytes, str] | None = None
    for headers, content in _parts(body, (boundary.group(1) or boundary.group(2)).encode()):
        disposition = headers.get("content-disposition", "")
        if "filename=" in disposition:
            file = content, headers.get("content-type", DEFAULT_TYPE)
        elif (name := _NAME.search(disposition)) is not None:
            fields[name.group(1)] = content.decode("utf-8", "replace")
    if file is None:
        raise StorageError(400, "InvalidRequest", "the form holds no file")
    seconds = fields.get("cacheControl", "")
    metadata = fields.get("metadata", fields.get("userMetadata"))
    return Upload(
        *file,
        cache_control=f"max-age={seconds}" if seconds.isdigit() else seconds or "no-cache",
        metadata=None if metadata is None else _object(metadata),
    )


def header_metadata(request: Request) -> dict[str, object] | None:
    """What the header ``x-metadata`` says of a file: JSON in base64; what is none counts as nothing."""
    text = request.headers.get("x-metadata")
    if text is None:
        return None
    try:
        return _object(base64.b64decode(text, validate=True).decode("utf-8"))
    except (ValueError, StorageError):
        return None


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    # A line break before each boundary belongs to it, also before the first.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    parts: list[tuple[dict[str, str], bytes]] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            break
        head, found, content = piece.partition(b"\r\n\r\n")
        if not found:
            raise StorageError(400, "InvalidRequest", "the form is malformed")
        lines = (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n"))
        parts.append(({name.strip().lower(): value.strip() for name, _, value in lines}, content))
    return parts


def _object(text: str) -> dict[str, object]:
    try:
        value = read_json(text.encode())
    except ValueError as error:
        raise StorageError(400, "InvalidRequest", f"metadata is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(400, "InvalidRequest", "metadata must be an object")
    return value  # pyright: ignore[reportUnknownVariableType] - JSON keys are texts
