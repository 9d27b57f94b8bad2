"""Column values as the JSON Realtime sends: what ``to_jsonb`` of the value makes, with its known oddities.

Common types are rendered here, everything else by PostgreSQL, many values in one statement. Both ways give
the same text; `plain` returns None whenever it is not sure.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from reactive_worker.local.realtime.database import AnyConnection

log = logging.getLogger(__name__)

_BOOL, _BYTEA, _INT8, _INT2, _INT4, _TEXT, _FLOAT4, _FLOAT8 = 16, 17, 20, 21, 23, 25, 700, 701
_VARCHAR, _DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _INTERVAL, _TIMETZ = (
    1043,
    1082,
    1083,
    1114,
    1184,
    1186,
    1266,
)
_NUMERIC, _UUID, _JSONB = 1700, 2950, 3802

_INTEGERS = frozenset({_INT2, _INT4, _INT8})
_FLOATS = frozenset({_FLOAT4, _FLOAT8})
#: Types whose JSON is the string of their text form.
_STRINGS = frozenset({_TEXT, _VARCHAR, _UUID, _DATE, _TIME, _TIMETZ, _INTERVAL})
_NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})

_TIMESTAMP_TEXT = re.compile(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
_PLAIN_DECIMAL = re.compile(r"-?\d+(\.\d+)?")

#: A value PostgreSQL must render: its type and its text form.
Pending = tuple[int, str]


def plain(type_oid: int, text: str) -> str | None:
    """Render a value of a common type without asking PostgreSQL.

    Parameters
    ----------
    type_oid:
        The column's type.
    text:
        The value as its type prints it (ISO dates, time zone UTC).

    Returns
    -------
    JSON, or None when PostgreSQL has to render it.

    Example
    -------
    >>> plain(1184, "2026-11-03 09:32:55.1+00")
    '"2026-11-03T09:32:55.1+00:00"'
    """
    if type_oid in _STRINGS:
        return json.dumps(text, ensure_ascii=False)
    if type_oid in _INTEGERS or type_oid == _JSONB:
        return text
    if type_oid == _BOOL:
        return "true" if text == "t" else "false"
    if (
        type_oid == _TIMESTAMPTZ
        and text.endswith("+00")
        and _TIMESTAMP_TEXT.fullmatch(text, 0, len(text) - 3)
    ):
        return f'"{text[:10]}T{text[11:]}:00"' if text[10] == " " else None
    if type_oid == _TIMESTAMP and _TIMESTAMP_TEXT.fullmatch(text):
        return f'"{text[:10]}T{text[11:]}"' if text[10] == " " else None
    if type_oid == _NUMERIC or type_oid in _FLOATS:
        if text in _NOT_NUMBERS:
            return "null"
        # Exponents are written out, and there is no negative zero: PostgreSQL knows how.
        return text if _PLAIN_DECIMAL.fullmatch(text) and not text.startswith("-0") else None
    if type_oid == _BYTEA and text.startswith("\\x"):
        return f'"{text[2:]}"'
    return None


class Renderer:
    """Renders the rarer types in PostgreSQL; remembers how types are written in a cast.

    Example
    -------
    >>> renderer = Renderer()
    >>> await renderer.render(connection, [(1007, "{1,2,NULL}")])
    {(1007, '{1,2,NULL}'): '[1, 2, null]'}
    """

    def __init__(self) -> None:
        self._type_names: dict[int, str] = {}

    async def type_names(self, connection: AnyConnection, oids: Iterable[int]) -> dict[int, str]:
        """Types as a cast spells them, without length or precision (so char(5) is ``character``)."""
        if unknown := sorted({oid for oid in oids if oid not in self._type_names}):
            cursor = await connection.execute(
                "select o, format_type(o, null) from unnest(%s::oid[]) as o", (unknown,), prepare=True
            )
            self._type_names.update({int(oid): name for oid, name in await cursor.fetchall()})
        return self._type_names

    async def render(self, connection: AnyConnection, values: Iterable[Pending]) -> dict[Pending, str]:
        """Render values in one round trip, one statement a type.

        Parameters
        ----------
        connection:
            An autocommit connection with time zone UTC.
        values:
            What `plain` would not do; repeats cost nothing.
        """
        by_type: defaultdict[int, dict[str, None]] = defaultdict(dict)
        for type_oid, text in values:
            by_type[type_oid][text] = None
        if not by_type:
            return {}
        names = await self.type_names(connection, by_type)
        rendered: dict[Pending, str] = {}
        for type_oid, texts in by_type.items():
            rendered.update(await self._render_type(connection, type_oid, names[type_oid], list(texts)))
        return rendered

    async def _render_type(
        self, connection: AnyConnection, type_oid: int, name: str, texts: Sequence[str]
    ) -> dict[Pending, str]:
        query = sql.SQL(
            "select to_jsonb(v::{})::text from unnest(%s::text[]) with ordinality as u(v, i) order by i"
        )
        statement = query.format(type_sql(name))
        try:
            cursor = await connection.execute(statement, (list(texts),))
            rows = await cursor.fetchall()
            return {(type_oid, text): json_text for text, (json_text,) in zip(texts, rows, strict=True)}
        except psycopg.DataError as error:
            # json may hold what jsonb cannot (\\u0000): that value alone becomes null.
            if len(texts) == 1:
                log.warning("a %s value has no JSON form, sent as null: %s", name, error)
                return {(type_oid, texts[0]): "null"}
            middle = len(texts) // 2
            return await self._render_type(connection, type_oid, name, texts[:middle]) | (
                await self._render_type(connection, type_oid, name, texts[middle:])
            )


def type_sql(name: str) -> sql.SQL:
    """A type's name for a cast. It comes from ``format_type``, which quotes, and cannot be a parameter."""
    return sql.SQL(name)  # pyright: ignore[reportArgumentType] - quoted, see above


def json_key_order(name: str) -> tuple[int, bytes]:
    """Sort key for object keys in the order of jsonb: by length in bytes, then bytewise."""
    encoded = name.encode()
    return len(encoded), encoded
