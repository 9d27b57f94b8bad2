"""Objects page by page, with a cursor: what `list-v2` answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from reactive_worker.local.json_text import read_json
from reactive_worker.local.storage.errors import StorageError

_COLUMNS = ("name", "updated_at", "created_at")
#: Most entries of one page.
MOST = 1000
_SHOWN = ("id", "name", "updated_at", "created_at", "last_accessed_at", "metadata")


def page(objects: Iterable[Mapping[str, Any]], prefix: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """One page of what lies below `prefix`.

    Parameters
    ----------
    objects:
        All objects whose name begins with `prefix`.
    options:
        ``limit``, ``cursor``, ``with_delimiter`` and ``sortBy`` of the request.

    Raises
    ------
    StorageError
        The options make no sense.
    """
    limit = options.get("limit", MOST)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise StorageError(400, "InvalidRequest", "limit must be a whole number from 1")
    limit = min(limit, MOST)
    cursor = _read_cursor(options.get("cursor"))
    sort = cast("dict[str, Any]", cursor.get("sort") or options.get("sortBy") or {})
    column, order = sort.get("column", "name"), sort.get("order", "asc")
    if column not in _COLUMNS or order not in ("asc", "desc"):
        raise StorageError(400, "InvalidRequest", f"sortBy must name one of {', '.join(_COLUMNS)}")
    entries = _entries(objects, prefix, delimited=options.get("with_delimiter") is True)
    entries.sort(key=lambda entry: (entry.get(column) or "", entry["name"]), reverse=order == "desc")
    if "after" in cursor:
        after = tuple(cursor["after"])
        entries = [entry for entry in entries if _lies_behind(entry, after, column, order)]
    shown, more = entries[:limit], len(entries) > limit
    last = shown[-1] if more else None
    return {
        "hasNext": more,
        **(
            {
                "nextCursor": _cursor({"after": [last.get(column) or "", last["name"]], "sort": sort}),
                "nextCursorKey": last["name"],
            }
            if last is not None
            else {}
        ),
        "folders": [{"name": each["name"]} for each in shown if each["id"] is None],
        "objects": [each for each in shown if each["id"] is not None],
    }


def _entries(objects: Iterable[Mapping[str, Any]], prefix: str, *, delimited: bool) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in objects:
        name = str(each["name"])
        head, slash, _ = name[len(prefix) :].partition("/")
        if delimited and slash:
            folder = f"{prefix}{head}/"
            found.setdefault(folder, {"id": None, "name": folder})
        else:
            found[name] = {column: each[column] for column in _SHOWN}
    return list(found.values())


def _lies_behind(entry: Mapping[str, Any], after: tuple[Any, ...], column: str, order: str) -> bool:
    place = (entry.get(column) or "", entry["name"])
    return place > after if order == "asc" else place < after


def _cursor(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _read_cursor(text: Any) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = read_json(base64.urlsafe_b64decode(str(text)))
        after = cast("dict[str, Any]", value)["after"]
        if len(after) != 2 or not all(isinstance(part, str) for part in after):
            raise ValueError("no cursor")
    except (ValueError, KeyError, TypeError):
        raise StorageError(400, "InvalidParameter", "Invalid continuation token") from None
    return cast("dict[str, Any]", value)
