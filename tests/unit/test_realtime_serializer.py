"""Frames: both versions, text and binary, and what is ignored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.local.realtime.serializer import (
    Inbound,
    Raw,
    UserBroadcast,
    Version,
    decode_binary,
    decode_text,
    encode,
    encode_binary,
    fits_binary,
    user_broadcast_payload,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
references = st.none() | texts
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(texts, texts, json_values, references)
def test_version_1_has_exactly_four_keys(topic: str, event: str, payload: object, ref: str | None) -> None:
    frame = json.loads(encode("1.0.0", topic, event, payload, ref=ref, join_ref="9"))
    assert frame == {"topic": topic, "event": event, "payload": payload, "ref": ref}


@given(texts, texts, json_values, references, references)
def test_version_2_is_a_list_of_five(
    topic: str, event: str, payload: object, ref: str | None, join_ref: str | None
) -> None:
    frame = json.loads(encode("2.0.0", topic, event, payload, ref=ref, join_ref=join_ref))
    assert frame == [join_ref, ref, topic, event, payload]
    assert decode_text("2.0.0", json.dumps(frame)) == Inbound(topic, event, payload, ref, join_ref)


def test_raw_json_goes_in_as_it_is() -> None:
    frame = encode("1.0.0", "t", "e", Raw('{"b": 1, "a": 2}'), ref=None, join_ref=None)
    assert frame == '{"event":"e","payload":{"b": 1, "a": 2},"ref":null,"topic":"t"}'


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.0.0", "hello"),
        ("1.0.0", "[]"),
        ("1.0.0", '{"topic":"x"}'),
        ("1.0.0", '{"topic":1,"event":"e","payload":{},"ref":null}'),
        ("2.0.0", "hello"),
        ("2.0.0", "{}"),
        ("2.0.0", '[null,"1","t","e"]'),
        ("2.0.0", '[null,"1",7,"e",{}]'),
    ],
)
def test_what_is_no_frame_is_ignored(version: Version, text: str) -> None:
    assert decode_text(version, text) is None


def test_a_number_as_reference_is_answered_as_a_text() -> None:
    frame = decode_text("1.0.0", '{"topic":"t","event":"e","payload":{},"ref":7}')
    assert frame is not None
    assert (frame.ref, frame.join_ref) == ("7", None)


@given(st.lists(texts, min_size=5, max_size=5), st.binary(max_size=30), st.booleans())
def test_a_binary_push_is_read(fields: list[str], data: bytes, is_json: bool) -> None:
    encoded = [field.encode() for field in fields]
    head = bytes([3, *map(len, encoded), is_json])
    frame = decode_binary(head + b"".join(encoded) + data)
    join_ref, ref, topic, event, _metadata = fields
    assert frame == Inbound(
        topic, "broadcast", UserBroadcast(event, data, is_json), ref or None, join_ref or None
    )


@pytest.mark.parametrize("data", [b"", b"\3", b"\4\0\0\0\0\0\0", b"\3\5\0\0\0\0\1abc", b"\3\1\0\0\0\0\1\xff"])
def test_other_binary_frames_are_ignored(data: bytes) -> None:
    assert decode_binary(data) is None


def test_a_binary_broadcast_is_written_as_recorded() -> None:
    frame = encode_binary("realtime:both2", UserBroadcast("wake", b'{"queue":"mail"}', is_json=True))
    assert frame.hex() == "040e0400017265616c74696d653a626f74683277616b657b227175657565223a226d61696c227d"


def test_long_names_do_not_fit_a_binary_frame() -> None:
    assert fits_binary("t" * 255, "e")
    assert not fits_binary("t" * 256, "e")
    assert not fits_binary("t", "é" * 128)


def test_a_version_1_member_gets_a_binary_broadcast_as_json() -> None:
    payload = user_broadcast_payload(UserBroadcast("wake", b'{"a":1}', is_json=True))
    assert payload.text == '{"event":"wake","payload":{"a":1},"type":"broadcast"}'
