"""Objects as the files and folders one level below a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reactive_worker.local.storage.errors import StorageError

_COLUMNS = ("name", "updated_at", "created_at", "last_accessed_at")
_FILE = ("id", "updated_at", "created_at", "last_accessed_at", "metadata")


def entries(
    objects: Iterable[Mapping[str, Any]], prefix: str, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One page of what lies below `prefix`: folders have no id.

    Parameters
    ----------
    objects:
        All objects whose name begins with `prefix`.
    prefix:
        Empty, or with a slash at its end.
    options:
        ``limit``, ``offset``, ``search`` and ``sortBy`` of the request. Raises StorageError.
    """
    found: dict[str, dict[str, Any]] = {}
    search = str(options.get("search") or "").lower()
    for each in objects:
        head, slash, _ = str(each["name"])[len(prefix) :].partition("/")
        if not head.lower().startswith(search):
            continue
        if slash:
            found.setdefault(head + "/", {"name": head, **dict.fromkeys(_FILE)})
        else:
            found[head] = {"name": head, **{column: each[column] for column in _FILE}}
    sort: dict[str, Any] = options.get("sortBy") or {}
    column, order = sort.get("column", "name"), sort.get("order", "asc")
    if column not in _COLUMNS or order not in ("asc", "desc"):
        raise StorageError(400, "InvalidRequest", f"sortBy must name one of {', '.join(_COLUMNS)}")
    limit, offset = options.get("limit", 100), options.get("offset", 0)
    if not all(isinstance(number, int) and number >= 0 for number in (limit, offset)):
        raise StorageError(400, "InvalidRequest", "limit and offset must be whole numbers from 0")
    rows = sorted(found.values(), key=lambda entry: entry[column] or "", reverse=order == "desc")
    return rows[offset : offset + limit]
