"""Files a task is given: ``input_data["files"]`` as A2A file parts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, cast

from a2a.types import Part
from google.protobuf import json_format

#: What says where a file is; each names exactly one of them.
_PLACES = ("path", "url", "raw")


def files_of(input_data: Any) -> list[Part]:
    """The files `input_data` names, as parts; none when its ``files`` are something else.

    Each is an object with ``url``, ``raw`` (base64), or ``bucket`` and ``path`` (in Supabase Storage), and
    perhaps ``filename`` and ``mediaType``. A file in Storage has its place in the part's metadata, and no
    url until somebody signs one.

    Example
    -------
    >>> files_of({"files": [{"url": "https://example.com/a.pdf", "filename": "a.pdf"}]})[0].filename
    'a.pdf'
    """
    files: Any = cast("dict[str, Any]", input_data).get("files") if isinstance(input_data, Mapping) else None
    if not isinstance(files, list) or not files:
        return []
    parts = [_part(item) for item in cast("list[Any]", files)]
    # A list of names, say, is the user's own: all of it is, or none.
    return [part for part in parts if part is not None] if None not in parts else []


def place_of(part: Part) -> tuple[str, str] | None:
    """Bucket and path of a part that still needs a url; None for all others."""
    if part.url or part.WhichOneof("content") not in (None, "url"):
        return None
    storage: Any = json_format.MessageToDict(part.metadata).get("storage")
    if not isinstance(storage, Mapping):
        return None
    place = cast("Mapping[str, Any]", storage)
    bucket, path = place.get("bucket"), place.get("path")
    return (bucket, path) if isinstance(bucket, str) and isinstance(path, str) else None


def _part(item: Any) -> Part | None:
    if not isinstance(item, Mapping):
        return None
    file = cast("Mapping[str, Any]", item)
    given = [name for name in _PLACES if isinstance(file.get(name), str)]
    if len(given) != 1 or (given == ["path"]) != isinstance(file.get("bucket"), str):
        return None
    part = Part(filename=str(file.get("filename") or ""), media_type=str(file.get("mediaType") or ""))
    match given[0]:
        case "url":
            part.url = str(file["url"])
        case "raw":
            try:
                part.raw = base64.b64decode(str(file["raw"]), validate=True)
            except (binascii.Error, ValueError):
                return None
        case _:
            part.url = ""
            part.metadata.update({"storage": {"bucket": file["bucket"], "path": file["path"]}})
    return part
