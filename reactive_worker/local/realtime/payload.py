"""A change as a subscriber sees it: the ``data`` of a ``postgres_changes`` frame, written as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reactive_worker.local.realtime.catalog import Table, columns_json
from reactive_worker.local.realtime.decode import UNCHANGED, Relation, Row, Value
from reactive_worker.local.realtime.render import json_key_order

#: Largest change delivered whole, in bytes as the real server's log reader writes it.
LARGEST = 1024 * 1024
#: What remains of a larger one: values up to this many bytes.
_KEPT = 64
#: What the log reader writes around a value, besides its name: an estimate, good enough for the limit above.
_OVERHEAD = 60

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

NO_KEY = '["Error 400: Bad Request, no primary key"]'
NO_RIGHTS = '["Error 401: Unauthorized"]'
_TOO_LARGE = '["Error 413: Payload Too Large"]'


@dataclass(slots=True)
class Change:
    """One row changed by a committed transaction."""

    relation: Relation
    event: str
    #: Microseconds since 2000-01-01.
    commit_time: int
    new: Row | None
    old: Row | None
    #: Values by column name, once prepared: of the new row, and of the replica identity.
    record: dict[str, Value] = field(default_factory=dict[str, Value])
    identity: dict[str, Value] = field(default_factory=dict[str, Value])
    #: The same as JSON, once rendered.
    json: dict[str, str] = field(default_factory=dict[str, str])
    identity_json: dict[str, str] = field(default_factory=dict[str, str])

    def prepare(self) -> None:
        """Name the values: the new row without what the log does not hold, and the row's identity."""
        columns = self.relation.columns
        if self.new is not None:
            named = zip(columns, self.new, strict=False)
            self.record = {column.name: value for column, value in named if value is not UNCHANGED}
        # An UPDATE that left the key alone carries no old row: its identity is in the new one.
        source = self.old if self.old is not None else self.new
        if self.event != "INSERT" and source is not None:
            self.identity = {
                column.name: value
                for column, value in zip(columns, source, strict=False)
                if column.identity and value is not UNCHANGED
            }

    @property
    def judged(self) -> dict[str, Value]:
        """What filters look at: the new row; for a DELETE, the old one's identity."""
        return self.identity if self.event == "DELETE" else self.record

    def too_large(self) -> bool:
        """Whether it is over the limit."""
        texts = (*self.json.values(), *self.identity_json.values())
        # A character has at most four bytes: this settles it for nearly every change.
        if sum(map(len, texts)) * 4 < LARGEST // 2:
            return False
        size = sum(len(text.encode()) + _OVERHEAD for text in texts)
        return size + sum(len(name) for name in (*self.json, *self.identity_json)) > LARGEST


def commit_timestamp(microseconds: int) -> str:
    """Time of a commit as subscribers see it: UTC, milliseconds (cut, not rounded), Z.

    Parameters
    ----------
    microseconds:
        Since 2000-01-01 00:00 UTC, as PostgreSQL counts.

    Example
    -------
    >>> commit_timestamp(847_022_400_123_999)
    '2026-11-03T12:00:00.123Z'
    """
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class View:
    """What one role gets of a table's rows."""

    columns: str
    #: Names and how they begin a pair, in the order of keys in jsonb.
    keys: tuple[tuple[str, str], ...]
    primary_key: frozenset[str]
    names: str

    @classmethod
    def of(cls, table: Table, role: str, selected: frozenset[str] | None) -> View:
        """The view of a role, narrowed to the columns its binding selected."""
        readable = table.readable(role, selected)
        names = sorted((column.name for column in readable), key=json_key_order)
        return cls(
            columns_json(readable),
            tuple((name, f"{_string(name)}: ") for name in names),
            frozenset(column.name for column in table.key),
            f'"schema":{_string(table.schema)},"table":{_string(table.name)}',
        )

    def object(self, *sources: Mapping[str, str], key_only: bool = False, short_only: bool = False) -> str:
        """A row's values as one object; of several sources, the first that has a value counts."""
        pairs: list[str] = []
        for name, start in self.keys:
            if key_only and name not in self.primary_key:
                continue
            for source in sources:
                if (text := source.get(name)) is not None:
                    # In a change that is too large nulls go as well: the real server cannot tell their size.
                    if not short_only or (text != "null" and len(text.encode()) <= _KEPT):
                        pairs.append(start + text)
                    break
        return "{" + ", ".join(pairs) + "}"


def change_data(change: Change, view: View, *, row_security: bool) -> str:
    """Write a change for a role that may see it."""
    too_large = change.too_large()
    parts = [
        f'"columns":{view.columns}',
        f'"commit_timestamp":"{commit_timestamp(change.commit_time)}"',
        f'"errors":{_TOO_LARGE if too_large else "null"}',
    ]
    if change.event != "INSERT":
        # Policies cannot be asked about a row that is gone: everybody gets its key, and no more.
        key_only = change.event == "DELETE" and row_security
        identity = view.object(change.identity_json, key_only=key_only, short_only=too_large)
        parts.append(f'"old_record":{identity}')
    if change.event != "DELETE":
        # A column the log left out is taken from the old row, where that is known (identity FULL).
        record = view.object(change.json, change.identity_json, short_only=too_large)
        parts.append(f'"record":{record}')
    return "{" + ",".join(parts) + f',{view.names},"type":"{change.event}"' + "}"


def problem_data(change: Change, view: View, problem: str) -> str:
    """Write a change that may not be shown: only what happened to which table, and why nothing more."""
    parts = ['"columns":[]', '"commit_timestamp":null', f'"errors":{problem}']
    if change.event == "UPDATE":
        parts.append('"old_record":{}')
    return "{" + ",".join(parts) + f',"record":{{}},{view.names},"type":"{change.event}"' + "}"
