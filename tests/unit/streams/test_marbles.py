"""The helpers for tests tell the truth."""

from __future__ import annotations

import pytest
from reactivex import operators as ops

from reactive_worker.testing.marbles import Message, VirtualTime, candidates, moment, text_chunk, todo


def test_hot_streams_go_on_whether_anybody_listens_or_not() -> None:
    time = VirtualTime()
    source = time.hot("-a-b-c-|")
    time.run(2)
    result = time.observe(source)
    time.run(4)
    result.dispose()
    time.run()
    assert result.messages == [Message(3, "next", "b")]
    assert source.subscriptions == [(2, 4)]


def test_cold_streams_begin_with_each_subscriber() -> None:
    time = VirtualTime(step=0.5)
    source = time.cold("-a-|")
    first = time.observe(source)
    time.run(1)
    second = time.observe(source)
    time.run(3)
    assert (first.times, second.times) == ([0.5], [1.5])
    assert source.subscriptions == [(0, 1.5), (1, 2.5)]


def test_what_was_heard_compares_with_a_diagram() -> None:
    time = VirtualTime()
    error = RuntimeError("broke")
    rows = candidates("ab")
    result = time.observe(time.hot("-(a,b)-#", rows, error))
    time.run()
    assert result.messages == time.messages("-(a,b)-#", rows, error)
    assert (result.values, result.error, result.completed) == ([rows["a"], rows["b"]], error, False)


def test_digits_are_names_when_there_are_values() -> None:
    time = VirtualTime()
    result = time.observe(time.hot("-1-2|", {"1": "one", "2": "two"}))
    time.run()
    assert result.values == ["one", "two"]


def test_a_name_without_a_value_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="the diagram '-x-' names 'x', the values do not"):
        VirtualTime().hot("-x-", {"a": 1})


def test_no_time_passes_but_what_is_told() -> None:
    time = VirtualTime()
    result = time.observe(time.hot("a-").pipe(ops.delay(1.0)))
    time.advance(0)
    assert (result.messages, time.now()) == ([], moment(1e-6))
    time.advance(1)
    assert result.completed is False
    assert len(result.values) == 1


def test_rows_and_events_are_what_the_database_would_send() -> None:
    assert todo("a", prompt="Hello", seq=7).seq == 7
    assert text_chunk("a", "x", append=False, last=True).event_data["artifactUpdate"].keys() == {
        "taskId",
        "contextId",
        "artifact",
        "lastChunk",
    }
