"""Texts of the real server: values in errors, tokens' problems, times, values rendered in Python."""

from __future__ import annotations

import json
import re
import time

import pytest

from reactive_worker.local.keys import Keys
from reactive_worker.local.realtime import wording
from reactive_worker.local.realtime.joins import JoinRefusedError, Replay, read_join
from reactive_worker.local.realtime.payload import commit_timestamp
from reactive_worker.local.realtime.presence import CALLS_WINDOW, MOST_CALLS, CallLimit
from reactive_worker.local.realtime.render import json_key_order, plain
from reactive_worker.local.realtime.timings import Timings
from reactive_worker.local.realtime.tokens import TokenError, api_key_token, verify

KEYS = Keys.default()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nil"),
        (True, "true"),
        (1.5, "1.5"),
        ('a"b', '"a\\"b"'),
        (["a", 1], '["a", 1]'),
        ({"b": None, "a": "x"}, '%{"a" => "x", "b" => nil}'),
    ],
)
def test_values_are_written_as_in_the_real_servers_errors(value: object, text: str) -> None:
    assert wording.inspect(value) == text


def test_a_short_list_of_filters_is_one_line() -> None:
    assert wording.filters([("a", "eq", "1", False)]) == '[{"a", "eq", "1", false}]'


def test_a_long_list_of_filters_is_broken_as_recorded() -> None:
    value = "{" + ",".join(map(str, range(101))) + "}"
    assert wording.filters([("priority", "in", value, False)]) == (
        f'[\n  {{"priority", "in",\n   "{value}",\n   false}}\n]'
    )


@pytest.mark.parametrize(
    ("token", "join", "handshake", "system"),
    [
        ("abc", "MalformedJWT: The token provided is not a valid JWT", None, None),
        (
            Keys(jwt_secret="x" * 40).anon_key,
            "JwtSignatureError: Failed to validate JWT signature",
            None,
            ":signature_error",
        ),
        (
            KEYS.mint({"role": "anon", "exp": int(time.time()) - 100}),
            "InvalidJWTToken: Token has expired N seconds ago",
            "Token has expired",
            None,
        ),
        (
            KEYS.mint({"role": "anon"}),
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
            None,
            None,
        ),
        (
            KEYS.mint({"role": "anon", "exp": True}),
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
            None,
            None,
        ),
    ],
    ids=["malformed", "signature", "expired", "no exp", "exp no number"],
)
def test_bad_tokens(token: str, join: str, handshake: str | None, system: str | None) -> None:
    with pytest.raises(TokenError) as caught:
        verify(KEYS, token)
    text = join.split(": ", 1)[1]
    assert re.sub(r"\d+ seconds", "N seconds", caught.value.join_reason) == join
    if handshake is not None:
        assert caught.value.handshake_text == handshake
    if system is not None:
        assert caught.value.system_text == system
    elif "expired" not in text:
        assert caught.value.system_text == text


def test_new_style_keys_stand_for_the_legacy_ones() -> None:
    assert api_key_token(KEYS, KEYS.secret_key) == KEYS.service_role_key
    assert api_key_token(KEYS, KEYS.publishable_key) == KEYS.anon_key
    assert verify(KEYS, api_key_token(KEYS, KEYS.secret_key)).role == "service_role"
    assert api_key_token(KEYS, "sb_secret_other") == "sb_secret_other"


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("realtime:", {"config": {}}, "TopicNameRequired: You must provide a topic name"),
        (
            "realtime:x",
            {"config": {"broadcast": "x"}},
            "UnknownErrorOnChannel: no function clause matching in Access.get/3",
        ),
        (
            "realtime:x",
            {"config": {"broadcast": {"replay": {"since": 0}}}},
            "UnableToReplayMessages: Replay is not allowed for public channels",
        ),
    ],
)
def test_joins_that_are_refused(topic: str, payload: object, reason: str) -> None:
    with pytest.raises(JoinRefusedError) as caught:
        read_join(topic, payload, KEYS, KEYS.anon_key)
    assert str(caught.value) == reason


def test_a_private_join_may_ask_for_what_it_missed() -> None:
    def asked(replay: object) -> Replay | None:
        config = {"private": True, "broadcast": {"replay": replay}}
        return read_join("realtime:x", {"config": config}, KEYS, KEYS.anon_key).replay

    assert asked(None) is None
    assert asked({"since": 5}) == Replay(5, 25)
    assert asked({"since": 5, "limit": 3}) == Replay(5, 3)
    assert asked({"since": 5, "limit": 1000}) == Replay(5, 25)
    assert asked({"since": 5, "limit": -1}) == Replay(5, 1)
    for wrong in ({}, {"since": "5"}, {"since": True}, {"since": 5, "limit": None}, 7):
        with pytest.raises(JoinRefusedError, match="Replay params are not valid"):
            asked(wrong)


def test_a_join_without_token_uses_the_sockets() -> None:
    for payload in ({"config": {}}, {"config": {}, "access_token": "sb_publishable_x"}, None):
        join = read_join("realtime:room", payload, KEYS, KEYS.service_role_key)
        assert join.token.role == "service_role"


def test_a_join_without_config_names_its_table_in_the_topic() -> None:
    join = read_join("realtime:public:todolist:id=eq.1", {}, KEYS, KEYS.anon_key)
    assert join.bindings == ({"schema": "public", "table": "todolist", "filter": "id=eq.1"},)
    assert not join.configured


def test_commit_times_are_cut_to_milliseconds() -> None:
    assert commit_timestamp(0) == "2000-01-01T00:00:00.000Z"
    assert commit_timestamp(999_999) == "2000-01-01T00:00:00.999Z"


@pytest.mark.parametrize(
    ("type_oid", "text", "rendered"),
    [
        (16, "t", "true"),
        (17, "\\xdeadbeef", '"deadbeef"'),
        (20, "9223372036854775807", "9223372036854775807"),
        (25, 'a"\\\n漢', '"a\\"\\\\\\n漢"'),
        (25, "\x01\x7f", '"\\u0001\x7f"'),
        (1700, "1.10", "1.10"),
        (1700, "NaN", "null"),
        (701, "-Infinity", "null"),
        (701, "1e+300", None),
        (701, "-0", None),
        (1114, "2026-01-02 03:04:05.1", '"2026-01-02T03:04:05.1"'),
        (1114, "0044-03-15 00:00:00 BC", None),
        (1184, "2026-01-02 03:04:05+00", '"2026-01-02T03:04:05+00:00"'),
        (1184, "10000-01-02 03:04:05+00", None),
        (1184, "infinity", None),
        (3802, '{"a": 2.00}', '{"a": 2.00}'),
        (1042, "ab   ", None),
        (114, '{"z":1}', None),
    ],
)
def test_plain_values(type_oid: int, text: str, rendered: str | None) -> None:
    assert plain(type_oid, text) == rendered
    if rendered is not None:
        json.loads(rendered)


def test_keys_have_the_order_of_jsonb() -> None:
    names = ["created_at", "id", "big", "é", "zz", "prompt"]
    assert sorted(names, key=json_key_order) == ["id", "zz", "é", "big", "prompt", "created_at"]


def test_presence_calls_are_limited_in_a_sliding_window() -> None:
    limit = CallLimit()
    assert [limit.exceeded(now=100.0 + n) for n in range(MOST_CALLS + 1)] == [False] * MOST_CALLS + [True]
    # The first call has left the window, the others have not.
    assert limit.exceeded(now=100.0 + CALLS_WINDOW)
    assert not limit.exceeded(now=200.0 + CALLS_WINDOW)


def test_pacing_is_fast_or_hosted() -> None:
    assert Timings.of("fast").idle_interval == 0.02
    assert Timings.of("hosted").idle_interval == 0.5
    with pytest.raises(ValueError, match="pacing"):
        Timings.of("slow")  # type: ignore[arg-type]
