"""Answers of the REST API: status, headers and body from the one row a statement returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.responses import JSONResponse, Response

from reactive_worker.local.json_text import read_json
from reactive_worker.local.rest.errors import ApiError, bad_range, header_text
from reactive_worker.local.rest.preferences import JSON, Media, Preferences
from reactive_worker.local.rest.session import Row


@dataclass(frozen=True)
class Result:
    """The row of `result_sql`, by name."""

    total: int | None
    rows: int
    body: bytes
    headers: str | None
    status: str | None
    extra: str | None

    @classmethod
    def of(cls, row: Row) -> Result:
        """Read it from the wire."""
        total, rows, body, headers, status, extra = row
        return cls(
            int(total) if total is not None else None,
            int(rows or 0),
            body or b"",
            headers.decode() if headers is not None else None,
            status.decode() if status is not None else None,
            extra.decode() if extra is not None else None,
        )


def content_range(offset: int, rows: int, total: int | None) -> str:
    """The Content-Range header: which rows these are, of how many."""
    span = f"{offset}-{offset + rows - 1}" if rows else "*"
    return f"{span}/{total if total is not None else '*'}"


def read_status(offset: int, result: Result) -> int:
    """200, or 206 for a part of a counted whole.

    Raises
    ------
    ApiError
        ``PGRST103``: the offset lies behind the end.
    """
    if result.total is None:
        return 200
    if offset > result.total:
        raise bad_range(
            f"An offset of {offset} was requested, but there are only {result.total} rows.",
            {"Content-Range": f"*/{result.total}"},
        )
    return 206 if result.rows < result.total else 200


def finish(
    status: int,
    result: Result,
    media: Media | None,
    preferences: Preferences,
    headers: Mapping[str, str],
) -> Response:
    """The answer to a request that went well.

    Parameters
    ----------
    status:
        Unless the database set another (``response.status``).
    media:
        None for an answer without a body.
    headers:
        More headers.
    """
    all_headers = dict(headers)
    if preferences.applied:
        all_headers["Preference-Applied"] = ", ".join(preferences.applied)
    if media is not None:
        all_headers["Content-Type"] = media.content_type
    response = Response(
        result.body if media is not None else b"", _status(result.status, status), all_headers
    )
    for name, value in _response_headers(result.headers):
        response.headers[name] = value
    return response


def _status(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit() or not 200 <= int(text) <= 599:
        raise ApiError(500, "PGRST112", "response.status GUC must be a valid status code", text)
    return int(text)


def _response_headers(text: str | None) -> list[tuple[str, str]]:
    if text is None:
        return []
    try:
        items = cast("list[dict[str, Any]]", read_json(text))
        return [(header_text(name), header_text(value)) for item in items for name, value in item.items()]
    except (ValueError, TypeError, AttributeError):
        raise ApiError(
            500,
            "PGRST111",
            "response.headers GUC must be a JSON array composed of objects with a single key "
            "and a string value",
        ) from None


def error_response(error: ApiError) -> Response:
    """The answer to a request that failed."""
    return JSONResponse(error.body, error.status, error.headers, f"{JSON}; charset=utf-8")
