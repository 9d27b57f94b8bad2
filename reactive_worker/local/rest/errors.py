"""PostgREST's error answers: four keys, a status, and how PostgreSQL's error codes become HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from reactive_worker.local.json_text import read_json
from reactive_worker.local.keys import KeyRefusedError


class ApiError(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status:
        HTTP status.
    code:
        PostgREST's code (``PGRST...``) or an SQLSTATE.
    message, details, hint:
        The rest of the body.
    headers:
        More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body: dict[str, Any] = {"code": code, "details": details, "hint": hint, "message": message}
        self.headers: dict[str, str] = {"Proxy-Status": f"PostgREST; error={code}", **(headers or {})}


class DatabaseError(Exception):
    """What PostgreSQL said, as far as the answer shows it.

    Parameters
    ----------
    sqlstate:
        Its code; empty when the connection was lost.
    message, details, hint:
        Its texts.
    """

    def __init__(
        self, sqlstate: str, message: str, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.details = details
        self.hint = hint


def parse_error(what: str, text: str, position: int, reason: str) -> ApiError:
    """A part of the query string that cannot be parsed; `position` counts from 0."""
    message = f'"failed to parse {what} ({text})" (line 1, column {position + 1})'
    return ApiError(400, "PGRST100", message, reason)


def unsupported(what: str) -> ApiError:
    """Something PostgREST can do and the embedded Supabase cannot."""
    return ApiError(
        400,
        "PGRST127",
        "Feature not implemented",
        f"{what} is not supported by the embedded Supabase",
        "Use `supabase start` or a hosted project for this.",
    )


def bad_body(message: str, details: str | None = None) -> ApiError:
    """A request body that cannot be used."""
    return ApiError(400, "PGRST102", message, details)


def bad_range(details: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """An offset or limit outside of what there is."""
    return ApiError(416, "PGRST103", "Requested range not satisfiable", details, headers=headers)


def unknown_table(schema: str, name: str, alike: str | None) -> ApiError:
    """A table or view that is not there, or not exposed."""
    hint = f"Perhaps you meant the table '{schema}.{alike}'" if alike else None
    return ApiError(
        404, "PGRST205", f"Could not find the table '{schema}.{name}' in the schema cache", None, hint
    )


def unknown_column(table: str, column: str) -> ApiError:
    """A body or `columns` names a column the table does not have."""
    return ApiError(400, "PGRST204", f"Could not find the '{column}' column of '{table}' in the schema cache")


#: How a function that takes a whole body is spoken of, by the body's media type.
_WHOLE_BODY = {"text/plain": "text", "text/xml": "xml", "application/octet-stream": "bytea"}


def unknown_function(
    schema: str, name: str, keys: Sequence[str], media_type: str | None, alike: str | None
) -> ApiError:
    """No function has this name and takes these arguments.

    Parameters
    ----------
    media_type:
        Of the body; None where there is none.
    alike:
        A function that may be meant.
    """
    raw = _WHOLE_BODY.get(media_type or "")
    shown = f"({', '.join(keys)})" if keys else " without parameters"
    word = "parameters" if len(keys) > 1 else "parameter"
    taking = f" with {word} {', '.join(keys)}" if keys else " without parameters"
    if raw is not None:
        shown, taking = "", f" with a single unnamed {raw} parameter"
    elif media_type == "application/json":
        taking += " or with a single unnamed json/jsonb parameter"
    return ApiError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{shown} in the schema cache",
        f"Searched for the function {schema}.{name}{taking}, but no matches were found in the schema cache.",
        f"Perhaps you meant to call the function {schema}.{alike}" if alike else None,
    )


def ambiguous_function(candidates: Sequence[str]) -> ApiError:
    """More than one function takes these arguments."""
    return ApiError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(candidates)}",
        None,
        "Try renaming the parameters or the function itself in the database so function overloading "
        "can be resolved",
    )


def not_single(rows: int) -> ApiError:
    """One object was asked for, and there are none or several."""
    return ApiError(
        406,
        "PGRST116",
        "Cannot coerce the result to a single JSON object",
        f"The result contains {rows} rows",
    )


def too_many_affected(rows: int) -> ApiError:
    """`Prefer: handling=strict, max-affected=n` is exceeded."""
    message = "Query result exceeds max-affected preference constraint"
    return ApiError(400, "PGRST124", message, f"The query affects {rows} rows")


def max_affected_of_one() -> ApiError:
    """`max-affected` is for functions that return sets."""
    return ApiError(
        400,
        "PGRST128",
        "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
    )


def bad_put() -> ApiError:
    """A PUT is for one row."""
    text = "limit/offset querystring parameters are not allowed for PUT"
    return ApiError(400, "PGRST114", text)


def put_mismatch() -> ApiError:
    """A PUT's row is not the one its address names."""
    return ApiError(400, "PGRST115", "Payload values do not match URL in primary key column(s)")


def from_key(error: KeyRefusedError) -> ApiError | None:
    """A token that was refused; None where the API gateway refuses with a body of its own."""
    if error.code is None:
        return None
    text = json.dumps(error.message)
    challenge = f'Bearer error="invalid_token", error_description={text}'
    return ApiError(401, error.code, error.message, error.details, headers={"WWW-Authenticate": challenge})


# Prefixes of SQLSTATE, the longer ones first where they are exceptions to a shorter one.
_STATUS: tuple[tuple[str, int], ...] = (
    ("53400", 500), ("25006", 405), ("57P01", 503), ("23503", 409), ("23505", 409), ("P0001", 400),
    ("42883", 404), ("42P01", 404), ("42P17", 500),
    ("08", 503), ("53", 503), ("09", 500), ("25", 500), ("2D", 500), ("38", 500), ("39", 500), ("3B", 500),
    ("40", 500), ("54", 500), ("55", 500), ("57", 500), ("58", 500), ("F0", 500), ("HV", 500), ("P0", 500),
    ("XX", 500), ("0L", 403), ("0P", 403), ("28", 403),
)  # fmt: skip


def status_of(error: DatabaseError, *, anonymous: bool) -> int:
    """The HTTP status of an SQLSTATE."""
    state = error.sqlstate
    if state == "42501":
        return 401 if anonymous else 403
    if state == "21000":
        return 400 if error.message.endswith("requires a WHERE clause") else 500
    if state == "22023" and error.message.startswith("role ") and error.message.endswith("does not exist"):
        return 401
    if state.startswith("PT"):
        digits = state[2:]
        return int(digits) if digits.isdigit() and 200 <= int(digits) <= 599 else 500
    return next((status for prefix, status in _STATUS if state.startswith(prefix)), 400)


def from_database(error: DatabaseError, *, anonymous: bool) -> ApiError:
    """PostgreSQL's error as PostgREST answers it."""
    if error.sqlstate == "PGRST":
        return _raised_response(error)
    if not error.sqlstate:
        return ApiError(503, "PGRST001", "Database client error. Retrying the connection.", error.message)
    status = status_of(error, anonymous=anonymous)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return ApiError(status, error.sqlstate, error.message, error.details, error.hint, headers)


def header_text(value: Any) -> str:
    """A header's name or value that a function of the database has chosen.

    Raises
    ------
    ValueError
        It cannot be sent, or would become more than one header.
    """
    text = str(value)
    if any(character < " " for character in text):
        raise ValueError("a header cannot have control characters")
    text.encode("latin-1")
    return text


def _raised_response(error: DatabaseError) -> ApiError:
    """``RAISE sqlstate 'PGRST'``: message is the body, detail is status and headers, both as JSON."""
    try:
        body = cast("dict[str, Any]", read_json(error.message))
        detail = cast("dict[str, Any]", read_json(error.details or ""))
        answer = ApiError(int(detail["status"]), str(body["code"]), str(body["message"]))
        answer.body = {name: body.get(name) for name in ("code", "details", "hint", "message")}
        answer.headers.update({header_text(k): header_text(v) for k, v in detail["headers"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(
            500,
            "PGRST121",
            "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
            error.message,
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: "
            "'details', 'hint'; DETAIL with 'status', 'headers'.",
        )
    return answer
