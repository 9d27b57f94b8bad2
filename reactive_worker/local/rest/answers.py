"""Answers of the REST API: status, headers and body from the one row a statement returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.responses import JSONResponse, Response

from reactive_worker.local.json_text import read_json
from reactive_worker.local.rest.errors import ApiError, bad_range, header_text
from reactive_worker.local.rest.preferences import JSON, Media
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
    confirmed: str,
    headers: Mapping[str, str],
) -> Response:
    """The answer to a request that went well.

    Parameters
    ----------
    status:
        Unless the database set another (``response.status``).
    media:
        None for an answer without a body.
    confirmed:
        The preferences that were followed.
    headers:
        More headers.
    """
    all_headers = dict(headers)
    if confirmed:
        all_headers["Preference-Applied"] = confirmed
    if media is not None:
        all_headers["Content-Type"] = media.content_type
    response = Response(
        result.body if media is not None else b"", _status(result.status, status), all_headers
    )
    chosen = _response_headers(result.headers)
    # A name may come several times (Set-Cookie); what the function says replaces what was said without it.
    for name in {name.lower() for name, _ in chosen}:
        if name in response.headers:
            del response.headers[name]
    for name, value in chosen:
        response.headers.append(name, value)
    return response


def _status(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit() or not 200 <= int(text) <= 599:
        raise ApiError(500, "PGRST112", "response.status guc must be a valid status code")
    return int(text)


def _response_headers(text: str | None) -> list[tuple[str, str]]:
    if text is None:
        return []
    try:
        return [_response_header(item) for item in _items(read_json(text))]
    except ValueError:
        raise ApiError(
            500,
            "PGRST111",
            "response.headers guc must be a JSON array composed of objects with a single key "
            "and a string value",
        ) from None


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no array")
    return cast("list[Any]", value)


def _response_header(item: Any) -> tuple[str, str]:
    if not isinstance(item, dict) or len(cast("dict[str, Any]", item)) != 1:
        raise ValueError("no object with a single key")
    ((name, value),) = cast("dict[str, Any]", item).items()
    if not isinstance(value, str):
        raise ValueError("no text")
    return header_text(name), header_text(value)


def error_response(error: ApiError) -> Response:
    """The answer to a request that failed."""
    return JSONResponse(error.body, error.status, error.headers, f"{JSON}; charset=utf-8")
