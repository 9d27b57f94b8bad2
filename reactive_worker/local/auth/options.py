"""What a request to the auth server brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from starlette.requests import Request

from reactive_worker.local.auth.errors import AuthError, invalid
from reactive_worker.local.json_text import read_json

_NO_JSON = "Could not parse request body as JSON"


async def read_options(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body; raises AuthError."""
    body = await request.body()
    try:
        value: Any = read_json(body) if body else {}
    except ValueError as error:
        raise AuthError(400, "bad_json", f"{_NO_JSON}: {error}") from error
    if not isinstance(value, dict):
        raise AuthError(400, "bad_json", f"{_NO_JSON}: an object is expected")
    return cast("dict[str, Any]", value)


def object_of(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object among the options, empty if it is not given; raises AuthError."""
    value: Any = options.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AuthError(400, "bad_json", f"{_NO_JSON}: {name} must be an object")
    return cast("dict[str, Any]", value)


def number_of(request: Request, name: str, default: int) -> int:
    """A number above 0 in the query string; raises AuthError."""
    text = request.query_params.get(name) or str(default)
    if not text.isdigit() or not 0 < int(text) < 10**6:
        raise invalid(f"{name} must be a number above 0")
    return int(text)
