"""`merge_chunks`: fewer events, the same text."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.streams import merge_chunks
from reactive_worker.streams._items import Item
from reactive_worker.streams.merge_chunks import MAX_TEXT_BYTES, take_merged
from reactive_worker.testing.marbles import event, text_chunk


def text_of(said: TodoEvent) -> str:
    return said.event_data["artifactUpdate"]["artifact"]["parts"][0]["text"]


def changed(said: TodoEvent, **update: Any) -> TodoEvent:
    return replace(said, event_data={"artifactUpdate": {**said.event_data["artifactUpdate"], **update}})


def with_artifact(said: TodoEvent, **artifact: Any) -> TodoEvent:
    before = said.event_data["artifactUpdate"]["artifact"]
    return changed(said, artifact={**before, **artifact})


def test_neighbours_of_one_artifact_become_one_event() -> None:
    first, *rest = [
        text_chunk("t", "He", append=False),
        text_chunk("t", "ll"),
        text_chunk("t", "o", last=True),
    ]
    [merged] = merge_chunks([first, *rest])
    assert merged.id == first.id
    assert merged.event_data == {
        "artifactUpdate": {
            "taskId": "t",
            "contextId": "t",
            "artifact": {"artifactId": "answer", "parts": [{"text": "Hello"}]},
            "lastChunk": True,
        }
    }


def test_other_tasks_may_speak_between() -> None:
    merged = merge_chunks(
        [text_chunk("t", "a"), text_chunk("u", "1"), text_chunk("t", "b"), text_chunk("u", "2"), event("v")]
    )
    assert [(said.todolist_id, text_of(said)) for said in merged[:2]] == [("t", "ab"), ("u", "12")]
    assert merged[2].todolist_id == "v"


def test_an_event_of_the_task_between_keeps_them_apart() -> None:
    said = [text_chunk("t", "a"), event("t"), text_chunk("t", "b")]
    assert merge_chunks(said) == said


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(text_chunk("t", "b", append=False), id="a new artifact"),
        pytest.param(text_chunk("t", "b", artifact_id="other"), id="another artifact"),
        pytest.param(text_chunk("t", "b", attempt=2), id="another run"),
        pytest.param(text_chunk("t", "b", context_id="c"), id="another context"),
        pytest.param(changed(text_chunk("t", "b"), metadata={"k": 1}), id="metadata"),
        pytest.param(changed(text_chunk("t", "b"), contextId="c"), id="another context id"),
        pytest.param(with_artifact(text_chunk("t", "b"), metadata={"k": 1}), id="artifact metadata"),
        pytest.param(with_artifact(text_chunk("t", "b"), name="n"), id="another name"),
        pytest.param(with_artifact(text_chunk("t", "b"), extensions=["e"]), id="extensions"),
        pytest.param(with_artifact(text_chunk("t", "b"), parts=[]), id="no part"),
        pytest.param(
            with_artifact(text_chunk("t", "b"), parts=[{"text": "b"}, {"text": "c"}]), id="two parts"
        ),
        pytest.param(with_artifact(text_chunk("t", "b"), parts=[{"text": "b", "metadata": {}}]), id="part"),
        pytest.param(with_artifact(text_chunk("t", "b"), parts=[{"data": {}}]), id="data"),
        pytest.param(with_artifact(text_chunk("t", "b"), parts="b"), id="no list"),
        pytest.param(changed(text_chunk("t", "b"), artifact=None), id="no artifact"),
        pytest.param(text_chunk("t", "b", outcome=Outcome("completed")), id="an outcome"),
        pytest.param(replace(text_chunk("t", "b"), event_type="other"), id="another type"),
        pytest.param(text_chunk("t", "b", message="b"), id="a message"),
    ],
)
def test_what_means_something_else_is_left_alone(second: TodoEvent) -> None:
    first = text_chunk("t", "a")
    assert merge_chunks([first, second]) == [first, second]


def test_nothing_is_appended_after_the_last_chunk() -> None:
    said = [text_chunk("t", "a", last=True), text_chunk("t", "b")]
    assert merge_chunks(said) == said


def test_a_named_artifact_takes_chunks_that_do_not_repeat_the_name() -> None:
    [merged] = merge_chunks([with_artifact(text_chunk("t", "a"), name="n"), text_chunk("t", "b")])
    assert merged.event_data["artifactUpdate"]["artifact"]["name"] == "n"


def test_messages_that_are_the_text_become_the_whole_text() -> None:
    [merged] = merge_chunks([text_chunk("t", "a", message="a"), text_chunk("t", "b", message="b")])
    assert merged.message == "ab"


def test_messages_that_say_the_same_stay() -> None:
    [merged] = merge_chunks([text_chunk("t", "a", message="…"), text_chunk("t", "b", message="…")])
    assert merged.message == "…"


def test_a_message_that_happens_to_be_the_text_is_not_repeated() -> None:
    said = [
        text_chunk("t", "a", message="x"),
        text_chunk("t", "x", message="x"),
        text_chunk("t", "y", message="y"),
    ]
    assert [(text_of(each), each.message) for each in merge_chunks(said)] == [("ax", "x"), ("y", "y")]


def test_merged_chunks_stay_within_the_bound() -> None:
    piece = "ü" * 1024
    merged = merge_chunks([text_chunk("t", piece) for _ in range(100)])
    sizes = [len(text_of(said).encode()) for said in merged]
    assert max(sizes) == MAX_TEXT_BYTES
    assert len(merged) == 4
    assert sum(sizes) == 100 * 2048


def test_a_chunk_above_the_bound_stands_alone() -> None:
    said = [text_chunk("t", "aaaa"), text_chunk("t", "b"), text_chunk("t", "c")]
    assert [text_of(each) for each in merge_chunks(said, max_bytes=2)] == ["aaaa", "bc"]


def test_no_more_are_taken_than_asked_for_and_the_rest_stays_in_order() -> None:
    waiting = deque(
        Item(said, 10)
        for said in (
            text_chunk("t", "a"), event("u"), text_chunk("t", "b"), event("v"), text_chunk("t", "c")
        )
    )  # fmt: skip
    taken = take_merged(waiting, 2)
    assert [(each.event.todolist_id, each.size) for each in taken] == [("t", 20), ("u", 10)]
    assert text_of(taken[0].event) == "ab"
    assert [each.event.todolist_id for each in waiting] == ["v", "t"]


def test_no_more_bytes_are_taken_than_asked_for_but_one_event_always_is() -> None:
    waiting = deque(Item(event(name), size) for name, size in (("a", 30), ("b", 5), ("c", 6), ("d", 1)))
    assert [each.event.todolist_id for each in take_merged(waiting, 10, 10)] == ["a"]
    assert [each.event.todolist_id for each in take_merged(waiting, 10, 10)] == ["b"]
    assert [each.event.todolist_id for each in take_merged(waiting, 10, 10)] == ["c", "d"]


_pieces = st.builds(
    lambda task, text, append, last, artifact, plain: (
        event(task) if plain else text_chunk(task, text, append=append, last=last, artifact_id=artifact)
    ),
    st.sampled_from("tu"),
    st.text(max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from("xy"),
    st.integers(0, 9).map(lambda number: number == 0),
)


@given(st.lists(_pieces, max_size=30), st.integers(1, 8))
def test_a_reader_sees_the_same_artifacts(said: list[TodoEvent], max_bytes: int) -> None:
    def read(events: list[TodoEvent]) -> dict[Any, Any]:
        """What folding the events gives: texts, what was ended, and how many plain events there were."""
        texts: dict[Any, Any] = {}
        for each in events:
            if "artifactUpdate" not in each.event_data:
                texts[each.todolist_id] = texts.get(each.todolist_id, 0) + 1
                continue
            update = each.event_data["artifactUpdate"]
            key = (each.todolist_id, update["artifact"]["artifactId"])
            before = texts.get(key, "") if update.get("append") else ""
            texts[key] = before + text_of(each)
            if update.get("lastChunk"):
                texts[(*key, "ended")] = texts[key]
        return texts

    merged = merge_chunks(said, max_bytes)
    assert read(merged) == read(said)
    assert len(merged) <= len(said)
    for task in "tu":
        kept = {each.id for each in merged}
        order = [each.id for each in said if each.todolist_id == task and each.id in kept]
        assert [each.id for each in merged if each.todolist_id == task] == order
