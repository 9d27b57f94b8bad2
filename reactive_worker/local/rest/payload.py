"""Bodies of requests: JSON, CSV and forms become JSON for PostgreSQL, and what has to be known of it here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl

from reactive_worker.local.json_text import read_json
from reactive_worker.local.rest.errors import ApiError, bad_body
from reactive_worker.local.rest.preferences import CSV, FORM, JSON

#: Media types of a body that is given to a function as it is.
RAW = ("text/plain", "text/xml", "application/octet-stream")


@dataclass(frozen=True)
class Body:
    """Rows as JSON: the text, for PostgreSQL, and what has to be known of it here."""

    text: str
    #: True if it is an array; else it is one object.
    many: bool
    objects: tuple[dict[str, Any], ...]


def parse_json(raw: bytes) -> tuple[str, Any]:
    """Decode a JSON body; returns its text and its value."""
    try:
        text = raw.decode("utf-8")
        return text, read_json(text)
    except ValueError:
        raise bad_body("Empty or invalid json") from None


def parse_rows(raw: bytes, kind: str = JSON) -> Body:
    """Decode a body of one row or of several.

    Parameters
    ----------
    kind:
        Its media type.

    Raises
    ------
    ApiError
        ``PGRST102``.
    """
    if kind == CSV:
        rows = _csv_rows(raw)
        return Body(json.dumps(rows), True, tuple(rows))
    if kind == FORM:
        row = form_fields(raw)
        return Body(f"[{json.dumps(row)}]", False, (row,))
    if kind != JSON:
        raise unacceptable(kind)
    text, value = parse_json(raw)
    items = cast("list[Any]", value if isinstance(value, list) else [value])
    many = isinstance(value, list)
    if not all(isinstance(item, dict) for item in items):
        text = (
            "All object keys must match" if many else "Request body must be a JSON object or an array of such"
        )
        raise bad_body(text)
    return Body(text if many else f"[{text}]", many, tuple(items))


def unacceptable(kind: str) -> ApiError:
    """A body of this media type cannot be read."""
    return bad_body(f"Content-Type not acceptable: {kind}")


def form_fields(raw: bytes) -> dict[str, str]:
    """The fields of a form; of several with one name the last counts."""
    return dict(form_pairs(raw))


def form_pairs(raw: bytes) -> list[tuple[str, str]]:
    """The fields of a form, in their order."""
    try:
        return parse_qsl(raw.decode("utf-8"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise bad_body("the form is not UTF-8") from None


def _csv_rows(raw: bytes) -> list[dict[str, str | None]]:
    try:
        lines = list(csv.reader(io.StringIO(raw.decode("utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise bad_body(f"the CSV cannot be read: {error}") from None
    if not lines:
        raise bad_body("the CSV has no line of names")
    names, *rows = (line for line in lines if line)
    if any(len(row) != len(names) for row in rows):
        raise bad_body("All lines must have same number of fields")
    return [{name: _value(text) for name, text in zip(names, row, strict=True)} for row in rows]


def _value(text: str) -> str | None:
    return None if text == "NULL" else text


# -- arguments of functions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arguments:
    """What a call gives to a function.

    Attributes
    ----------
    names:
        Of the arguments, for choosing the function.
    text:
        The whole JSON body; empty where there is none.
    texts:
        Arguments that came as texts, of a query string or a form; None: they are in `text`.
    raw:
        The body as it came, for a function that takes it whole.
    """

    names: tuple[str, ...] = ()
    text: str = ""
    texts: Sequence[tuple[str, str]] | None = None
    raw: bytes = b""


def read_arguments(raw: bytes, kind: str, columns: Sequence[str] | None) -> Arguments:
    """The arguments in the body of an rpc.

    Parameters
    ----------
    kind:
        The body's media type.
    columns:
        The ``columns`` parameter: only these keys are arguments.

    Raises
    ------
    ApiError
        ``PGRST102``.
    """
    if kind in RAW:
        return Arguments(raw=raw)
    if kind == FORM:
        pairs = form_pairs(raw)
        return Arguments(tuple(dict(pairs)), json.dumps(dict(pairs)), pairs, raw)
    if kind == CSV:
        rows = _csv_rows(raw)
        return Arguments(tuple(rows[0]) if rows else (), json.dumps(rows), raw=raw)
    if kind != JSON:
        raise unacceptable(kind)
    # supabase clients always send an object, but a POST without a body calls a function without arguments.
    text, value = parse_json(raw or b"{}")
    if columns is not None:
        return Arguments(tuple(dict.fromkeys(columns)), text, raw=raw)
    if isinstance(value, dict):
        return Arguments(tuple(cast("dict[str, Any]", value)), text, raw=raw)
    if isinstance(value, list) and value:
        return Arguments(_common_keys(cast("list[Any]", value)), text, raw=raw)
    # What is neither an object nor a list of such counts as an empty list there.
    return Arguments((), "[]", raw=b"[]")


def _common_keys(items: list[Any]) -> tuple[str, ...]:
    keys = cast("dict[str, Any]", items[0]).keys() if isinstance(items[0], dict) else None
    for item in items:
        if keys is None or not isinstance(item, dict) or cast("dict[str, Any]", item).keys() != keys:
            raise bad_body("All object keys must match")
    return tuple(keys or ())
