"""A2A parts whose content lies in Supabase Storage: where it is, and JSON with each of its parts changed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from reactive_worker.errors import SupabaseError

#: Characters of a text that stay in the row, for lists and logs.
EXCERPT = 1_000
#: Media types of parts that name none.
MEDIA_TYPES = {"raw": "application/octet-stream", "text": "text/plain", "data": "application/json"}

Part = dict[str, Any]
Kind = Literal["raw", "text", "data"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where a part's content is."""

    bucket: str
    path: str
    size: int | None = None
    sha256: str | None = None
    kind: Kind = "raw"

    @classmethod
    def of(cls, part: Mapping[str, Any]) -> StoredFile | None:
        """Read a part's metadata; None when its content is not in Storage."""
        metadata: Any = part.get("metadata")
        place: Any = metadata.get("storage") if isinstance(metadata, Mapping) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - anybody's JSON
        if not isinstance(place, Mapping) or "bucket" not in place or "path" not in place:
            return None
        known = cast("Mapping[str, Any]", place)
        size, kind = known.get("size"), known.get("kind")
        return cls(
            bucket=str(known["bucket"]),
            path=str(known["path"]),
            # A2A metadata knows floats only.
            size=int(size) if isinstance(size, int | float) else None,
            sha256=None if known.get("sha256") is None else str(known["sha256"]),
            kind=cast("Kind", kind) if kind in MEDIA_TYPES else "raw",
        )

    def check(self, content: bytes) -> bytes:
        """Return the content when it is what was stored; raises SupabaseError."""
        if self.sha256 is not None and hashlib.sha256(content).hexdigest() != self.sha256:
            raise SupabaseError(
                f"{self.bucket}/{self.path} is not the file that was stored: its hash differs"
            )
        return content


async def map_parts(value: Any, change: Callable[[Part], Awaitable[Part]]) -> Any:
    """A2A JSON with each of its parts changed; the very same object when none was."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        changed = [await map_parts(item, change) for item in items]
        same = all(new is old for new, old in zip(changed, items, strict=True))
        return items if same else changed
    if not isinstance(value, Mapping):
        return value
    fields = cast("Mapping[str, Any]", value)
    result: dict[str, Any] = {}
    for name, item in fields.items():
        if name == "parts" and isinstance(item, list):
            parts = cast("list[Any]", item)
            new: list[Any] = [await change(cast("Part", p)) if isinstance(p, dict) else p for p in parts]
            result[name] = parts if all(a is b for a, b in zip(new, parts, strict=True)) else new
        elif name in ("metadata", "data"):
            result[name] = item  # Anybody's JSON: what is called "parts" there is none of ours.
        else:
            result[name] = await map_parts(item, change)
    return fields if all(result[name] is fields[name] for name in fields) else result


def content_of(part: Mapping[str, Any]) -> bytes:
    """The bytes of a part that holds its content itself."""
    if "raw" in part:
        return base64.b64decode(str(part["raw"]))
    if "text" in part:
        return str(part["text"]).encode("utf-8", "replace")
    return json.dumps(part.get("data"), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def excerpt(text: str) -> str:
    """The beginning of a text that lies elsewhere."""
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
