"""Reading the replication stream: every message, and what is cut short."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.local.realtime.decode import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    DecodeError,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
    decode,
    relation_oid,
)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _row(row: Row) -> bytes:
    parts = [struct.pack("!H", len(row))]
    for value in row:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack("!I", len(value.encode())) + value.encode())
    return b"".join(parts)


def _encode(message: Message) -> bytes:
    """What PostgreSQL writes for a message, by its documentation."""
    match message:
        case Begin(lsn, time, xid):
            return b"B" + struct.pack("!QqI", lsn, time, xid)
        case Commit(lsn, end, time):
            return b"C" + struct.pack("!BQQq", 0, lsn, end, time)
        case Relation(oid, schema, name, identity, columns):
            head = b"R" + struct.pack("!I", oid) + _text(schema) + _text(name) + identity.encode()
            body = b"".join(
                bytes([column.identity]) + _text(column.name) + struct.pack("!Ii", column.type_oid, -1)
                for column in columns
            )
            return head + struct.pack("!H", len(columns)) + body
        case Insert(oid, new):
            return b"I" + struct.pack("!I", oid) + b"N" + _row(new)
        case Update(oid, old, new):
            before = b"" if old is None else b"K" + _row(old)
            return b"U" + struct.pack("!I", oid) + before + b"N" + _row(new)
        case Delete(oid, old):
            return b"D" + struct.pack("!I", oid) + b"O" + _row(old)
        case Truncate(oids):
            return b"T" + struct.pack("!IB", len(oids), 1) + struct.pack(f"!{len(oids)}I", *oids)
        case Type(oid, schema, name):
            return b"Y" + struct.pack("!I", oid) + _text(schema) + _text(name)
        case Origin(lsn, name):
            return b"O" + struct.pack("!Q", lsn) + _text(name)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
oids = st.integers(0, 2**32 - 1)
lsns = st.integers(0, 2**64 - 1)
times = st.integers(-(2**63), 2**63 - 1)
rows = st.lists(
    st.none() | st.just(UNCHANGED) | st.text(st.characters(exclude_categories=["Cs"])), max_size=6
).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, lsns, times, oids),
    st.builds(Commit, lsns, lsns, times),
    st.builds(
        Relation,
        oids,
        names,
        names,
        st.sampled_from("dfin"),
        st.lists(st.builds(Column, names, oids, st.booleans()), max_size=5).map(tuple),
    ),
    st.builds(Insert, oids, rows),
    st.builds(Update, oids, st.none() | rows, rows),
    st.builds(Delete, oids, rows),
    st.builds(Truncate, st.lists(oids, max_size=4).map(tuple)),
    st.builds(Type, oids, names, names),
    st.builds(Origin, lsns, names),
)


@given(messages)
def test_every_message_is_read_back(message: Message) -> None:
    assert decode(_encode(message)) == message


@given(messages, st.data())
def test_a_message_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    encoded = _encode(message)
    with pytest.raises(DecodeError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(messages)
def test_the_table_of_a_row_is_known_without_decoding_it(message: Message) -> None:
    expected = message.relation_oid if isinstance(message, Insert | Update | Delete) else None
    assert relation_oid(_encode(message)) == expected


def test_an_empty_schema_is_pg_catalog() -> None:
    message = decode(_encode(Relation(1, "", "t", "d", ())))
    assert isinstance(message, Relation)
    assert message.schema == "pg_catalog"


@pytest.mark.parametrize(
    "garbage",
    [b"", b"X123", b"I\0\0\0\1K\0\0", b"U\0\0\0\1X", b"D\0\0\0\1N\0\0", b"I\0\0\0\1N\0\1x"],
    ids=[
        "empty",
        "unknown",
        "insert without new row",
        "update without row",
        "delete of new",
        "unknown value",
    ],
)
def test_what_is_not_the_protocol_is_refused(garbage: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(garbage)
