"""Reads PostgreSQL's logical decoding output (plugin pgoutput, protocol version 1): bytes in, values out.

Every message is one frame of the stream: its first byte names it, numbers are big-endian, texts end with
a zero byte. Column values arrive as the text form their type prints.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final


class DecodeError(Exception):
    """A message that is not pgoutput protocol version 1."""


class Unchanged(Enum):
    """Marks a TOASTed column that an UPDATE did not touch: the log does not hold its value."""

    TOAST = "unchanged"


UNCHANGED: Final = Unchanged.TOAST

#: One column's value: its text form, None for NULL, or UNCHANGED.
Value = str | None | Unchanged
Row = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A published column, in attribute order."""

    name: str
    type_oid: int
    #: Part of the table's replica identity.
    identity: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table's shape, sent before its first change and again when it changed."""

    oid: int
    schema: str
    name: str
    #: ``d`` primary key, ``f`` whole row, ``i`` another index, ``n`` nothing.
    replica_identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """Start of a committed transaction."""

    final_lsn: int
    #: Microseconds since 2000-01-01 00:00 UTC.
    commit_time: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """End of a transaction."""

    commit_lsn: int
    #: Where reading goes on after this transaction.
    end_lsn: int
    commit_time: int


@dataclass(frozen=True, slots=True)
class Insert:
    """One inserted row."""

    relation_oid: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    """One updated row."""

    relation_oid: int
    #: Identity columns (others None) when the key changed, the whole old row for identity FULL, else None.
    old: Row | None
    new: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """One deleted row: its identity columns (others None), or all of it for identity FULL."""

    relation_oid: int
    old: Row


@dataclass(frozen=True, slots=True)
class Truncate:
    """Emptied tables."""

    relation_oids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """Name of a type that is not built in."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from another server."""

    commit_lsn: int
    name: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Type | Origin

_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")
_U32 = struct.Struct("!I")
_U16 = struct.Struct("!H")
_COLUMN_TAIL = struct.Struct("!Ii")


class _Reader:
    """A cursor over one message."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 1

    def u8(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def u16(self) -> int:
        (value,) = _U16.unpack_from(self.data, self.position)
        self.position += 2
        return value

    def u32(self) -> int:
        (value,) = _U32.unpack_from(self.data, self.position)
        self.position += 4
        return value

    def text(self) -> str:
        end = self.data.index(0, self.position)
        value = self.data[self.position : end].decode()
        self.position = end + 1
        return value

    def row(self) -> Row:
        values: list[Value] = []
        for _ in range(self.u16()):
            kind = self.u8()
            if kind == 0x74:  # t: text
                length = self.u32()
                end = self.position + length
                if end > len(self.data):
                    raise DecodeError("a value ends after its message")
                values.append(self.data[self.position : end].decode())
                self.position = end
            elif kind == 0x6E:  # n: null
                values.append(None)
            elif kind == 0x75:  # u: unchanged TOAST value
                values.append(UNCHANGED)
            else:
                raise DecodeError(f"unknown kind of value: {chr(kind)!r}")
        return tuple(values)


def _relation(reader: _Reader) -> Relation:
    oid = reader.u32()
    # An empty schema name stands for pg_catalog.
    schema = reader.text() or "pg_catalog"
    name = reader.text()
    replica_identity = chr(reader.u8())
    columns: list[Column] = []
    for _ in range(reader.u16()):
        flags = reader.u8()
        column = reader.text()
        type_oid, _typmod = _COLUMN_TAIL.unpack_from(reader.data, reader.position)
        reader.position += _COLUMN_TAIL.size
        columns.append(Column(column, type_oid, bool(flags & 1)))
    return Relation(oid, schema, name, replica_identity, tuple(columns))


def _insert(reader: _Reader) -> Insert:
    oid = reader.u32()
    if reader.u8() != 0x4E:  # N
        raise DecodeError("an Insert without a new row")
    return Insert(oid, reader.row())


def _update(reader: _Reader) -> Update:
    oid = reader.u32()
    kind = reader.u8()
    old: Row | None = None
    if kind in (0x4B, 0x4F):  # K: key, O: whole old row
        old = reader.row()
        kind = reader.u8()
    if kind != 0x4E:
        raise DecodeError("an Update without a new row")
    return Update(oid, old, reader.row())


def _delete(reader: _Reader) -> Delete:
    oid = reader.u32()
    if reader.u8() not in (0x4B, 0x4F):
        raise DecodeError("a Delete without an old row")
    return Delete(oid, reader.row())


def _truncate(reader: _Reader) -> Truncate:
    count = reader.u32()
    reader.u8()  # options: CASCADE, RESTART IDENTITY
    return Truncate(tuple(reader.u32() for _ in range(count)))


def relation_oid(message: bytes) -> int | None:
    """The table an Insert, Update or Delete is about, without decoding the row; None for other messages."""
    if message[:1] in (b"I", b"U", b"D") and len(message) >= 5:
        (oid,) = _U32.unpack_from(message, 1)
        return oid
    return None


def decode(message: bytes) -> Message:
    """Decode one pgoutput message.

    Parameters
    ----------
    message:
        The bytes of one XLogData frame after its header.

    Raises
    ------
    DecodeError
        The bytes are cut short, or not of protocol version 1.

    Example
    -------
    >>> decode(bytes.fromhex("42" "0000000000000010" "0000000000000002" "00000007"))
    Begin(final_lsn=16, commit_time=2, xid=7)
    """
    reader = _Reader(message)
    try:
        match message[:1]:
            case b"I":
                return _insert(reader)
            case b"U":
                return _update(reader)
            case b"D":
                return _delete(reader)
            case b"B":
                return Begin(*_BEGIN.unpack_from(message, 1))
            case b"C":
                _flags, commit_lsn, end_lsn, commit_time = _COMMIT.unpack_from(message, 1)
                return Commit(commit_lsn, end_lsn, commit_time)
            case b"R":
                return _relation(reader)
            case b"T":
                return _truncate(reader)
            case b"Y":
                return Type(reader.u32(), reader.text() or "pg_catalog", reader.text())
            case b"O":
                (lsn,) = struct.unpack_from("!Q", message, 1)
                reader.position = 9
                return Origin(lsn, reader.text())
            case other:
                raise DecodeError(f"unknown message {other!r}")
    except (IndexError, ValueError, struct.error) as error:
        raise DecodeError(f"message {message[:1]!r} is cut short or garbled: {error}") from error
