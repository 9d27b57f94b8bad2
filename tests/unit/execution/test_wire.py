"""Events as JSON: what is written can be read again."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.types import Message, Part, Task, TaskState
from google.protobuf import message as protobuf

from reactive_worker.errors import EventRefusedError, InvalidTaskError
from reactive_worker.execution.wire import copy_of, decode, decode_request, encode, text_of
from tests.unit.execution.fakes import artifact, message, status


def nested(levels: int, kind: str) -> Any:
    event = artifact("a")
    value = event.artifact.parts.add().data
    for _ in range(levels):
        value = value.list_value.values.add() if kind == "list" else value.struct_value.fields["x"]
    value.string_value = "bottom"
    return event


@pytest.mark.parametrize(
    "event",
    [
        message("x"),
        Task(id="t", context_id="c"),
        status(TaskState.TASK_STATE_WORKING, "x", a=1.5),
        artifact("a", "x", append=True, last_chunk=True),
    ],
)
def test_every_kind_of_event_survives_the_way_there_and_back(event: Any) -> None:
    same, data = encode(event)
    assert same == event
    assert len(data) == 1
    assert decode(data) == event


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_whatever_is_written_can_be_read_again(kind: str) -> None:
    written = refused = 0
    for levels in range(1, 70):
        try:
            event = copy_of(nested(levels, kind))
            _, data = encode(event)
        except (EventRefusedError, protobuf.DecodeError):
            # Copying is where protobuf itself gives up; the turn makes a refusal of that.
            refused += 1
        else:
            written += 1
            assert decode(data) == event
    assert written >= 28
    assert refused > 0


def test_what_is_too_deep_says_so() -> None:
    with pytest.raises(EventRefusedError, match="nested too deeply"):
        encode(nested(50, "list"))


def test_nul_is_replaced_in_the_event_as_in_its_json() -> None:
    event, data = encode(artifact("a", "x\0y"))
    assert event.artifact.parts[0].text == "x\ufffdy"
    assert data["artifactUpdate"]["artifact"]["parts"] == [{"text": "x\ufffdy"}]


def test_numbers_with_zero_bytes_are_left_alone() -> None:
    original = status(TaskState.TASK_STATE_WORKING, "x", n=1.0)
    event, _ = encode(original)
    assert event is original


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_word_for_is_refused_clearly(value: float) -> None:
    with pytest.raises(EventRefusedError, match="NaN and Infinity are no JSON"):
        encode(status(TaskState.TASK_STATE_WORKING, "x", n=value))


def test_other_events_of_the_log_are_not_a2a() -> None:
    assert decode({"retry": {"failures": 1}}) is None
    assert decode({}) is None
    with pytest.raises(InvalidTaskError, match="timestamp"):
        decode({"statusUpdate": {"status": {"timestamp": "yesterday"}}})


def test_a_request_is_read_with_or_without_its_envelope() -> None:
    plain = decode_request({"message": {"parts": [{"text": "x"}]}})
    assert plain is not None
    assert plain.message.parts[0].text == "x"
    assert decode_request({"message": "x"}) is None
    assert decode_request({}) is None


def test_text_of_joins_text_parts_and_knows_none_from_empty() -> None:
    assert text_of([]) is None
    assert text_of([Part(url="u")]) is None
    assert text_of([Part(text="")]) == ""
    assert text_of([Part(text="a"), Part(url="u"), Part(text="b")]) == "a\nb"
    assert text_of(Message().parts) is None
