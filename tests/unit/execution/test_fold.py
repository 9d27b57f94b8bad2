"""Folding: our result is the SDK's, and our additions are what they say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from a2a.server.context import ServerCallContext
from a2a.server.tasks import InMemoryTaskStore
from a2a.server.tasks.task_manager import TaskManager
from a2a.types import Message, Part, Role, Task, TaskState, TaskStatus
from a2a.utils.errors import InvalidAgentResponseError
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_worker.execution import Fold
from reactive_worker.execution.wire import Event
from tests.unit.execution.fakes import CONTEXT, ID, artifact, message, status

WORKING = TaskState.TASK_STATE_WORKING
FIRST = message("ask", message_id="first", role=Role.ROLE_USER)


def make_fold() -> Fold:
    return Fold(ID, CONTEXT, FIRST)


def folded(*events: Event) -> Task:
    fold = make_fold()
    for event in events:
        fold.apply(event)
    return fold.snapshot()


def by_the_sdk(*events: Any) -> Task:
    async def fold() -> Task:
        manager = TaskManager(InMemoryTaskStore(), ServerCallContext(), ID, CONTEXT, FIRST)
        for event in events:
            await manager.process(event)
        task = await manager.get_task()
        assert task is not None
        return task

    return asyncio.run(fold())


def _metadata() -> st.SearchStrategy[dict[str, Any]]:
    leaves = st.one_of(st.integers(0, 9).map(float), st.text("xy", max_size=2))
    return st.dictionaries(st.sampled_from("ab"), leaves | st.dictionaries(st.sampled_from("cd"), leaves))


@st.composite
def _statuses(draw: st.DrawFn) -> Any:
    text = draw(st.sampled_from(["", "x", "y"]))
    event = status(draw(st.sampled_from([WORKING, TaskState.TASK_STATE_INPUT_REQUIRED])))
    if text:
        event.status.message.CopyFrom(message(text))
    event.metadata.update(draw(_metadata()))
    return event


@st.composite
def _artifacts(draw: st.DrawFn) -> Any:
    event = artifact(draw(st.sampled_from("ab")), *draw(st.lists(st.sampled_from(["x", "y"]), min_size=1)))
    event.append = draw(st.booleans())
    event.last_chunk = draw(st.booleans())
    event.artifact.name = draw(st.sampled_from(["", "n", "m"]))
    event.artifact.metadata.update(draw(_metadata()))
    return event


@settings(max_examples=60)
@given(st.lists(_statuses() | _artifacts(), min_size=1, max_size=8))
def test_it_agrees_with_the_sdk(events: list[Any]) -> None:
    known: set[str] = set()
    for number, event in enumerate(events):
        if hasattr(event, "artifact"):
            event.append = event.append and event.artifact.artifact_id in known
            known.add(event.artifact.artifact_id)
        elif event.status.HasField("message"):
            event.status.message.message_id = str(number)
    assert folded(*events) == by_the_sdk(*events)


def test_a_new_status_sends_the_old_message_to_history() -> None:
    task = folded(
        status(WORKING, "one"), status(WORKING, "two"), status(TaskState.TASK_STATE_COMPLETED, "end")
    )
    assert [item.parts[0].text for item in task.history] == ["ask", "one", "two"]
    assert task.status.message.parts[0].text == "end"


def test_the_same_status_stored_twice_is_one_in_history() -> None:
    question = status(TaskState.TASK_STATE_AUTH_REQUIRED, "log in")
    task = folded(question, question)
    assert [item.parts[0].text for item in task.history] == ["ask"]


def test_status_metadata_is_merged_at_the_top_only() -> None:
    task = folded(status(WORKING, a={"x": 1}, b=1), status(WORKING, a={"y": 2}))
    assert {key: task.metadata.fields[key] for key in task.metadata.fields}.keys() == {"a", "b"}
    assert list(task.metadata.fields["a"].struct_value.fields) == ["y"]


def test_an_artifact_is_replaced_in_place_or_appended_to() -> None:
    task = folded(
        artifact("a", "1"),
        artifact("b", "1"),
        artifact("a", "2"),
        artifact("b", "2", "3", append=True),
    )
    assert [(item.artifact_id, [part.text for part in item.parts]) for item in task.artifacts] == [
        ("a", ["2"]),
        ("b", ["1", "2", "3"]),
    ]


def test_appending_ignores_a_new_name() -> None:
    first, second = artifact("a", "1"), artifact("a", "2", append=True)
    first.artifact.name, second.artifact.name = "name", "other"
    assert folded(first, second).artifacts[0].name == "name"


def test_appending_to_nothing_is_an_error_and_changes_nothing() -> None:
    fold = make_fold()
    with pytest.raises(InvalidAgentResponseError, match="does not exist"):
        fold.apply(artifact("a", "x", append=True))
    assert not fold.snapshot().artifacts


def test_a_direct_reply_folds_as_completed_with_that_message() -> None:
    task = folded(message("the answer"))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert task.status.message.parts[0].text == "the answer"
    assert [item.message_id for item in task.history] == ["first"]


def test_an_answer_moves_the_prompt_to_history_and_follows_it() -> None:
    fold = make_fold()
    fold.apply(status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?"))
    fold.receive(message("that", message_id="first", role=Role.ROLE_USER))
    task = fold.snapshot()
    # An equal message id is no reason to lose the second text.
    assert [item.parts[0].text for item in task.history] == ["ask", "which?", "that"]
    assert not task.status.HasField("message")
    assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED


def test_the_next_attempt_drops_what_the_abandoned_one_made() -> None:
    fold = make_fold()
    fold.begin_attempt()
    fold.apply(artifact("kept", "1"))
    fold.apply(status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?"))
    fold.receive(message("that"))
    fold.begin_attempt()
    fold.apply(artifact("kept", "2", append=True))
    fold.apply(artifact("gone", "x"))
    fold.begin_attempt()
    assert [(item.artifact_id, len(item.parts)) for item in fold.snapshot().artifacts] == [("kept", 1)]
    assert fold.has_artifact("kept")
    assert not fold.has_artifact("gone")
    fold.apply(artifact("gone", "y"))
    assert [item.artifact_id for item in fold.snapshot().artifacts] == ["kept", "gone"]


def test_chunks_still_join_after_an_attempt_was_dropped() -> None:
    fold = make_fold()
    fold.begin_attempt()
    fold.apply(artifact("a", "one "))
    fold.apply(artifact("a", "two", append=True))
    fold.receive(message("go on"))
    fold.begin_attempt()
    fold.apply(artifact("a", " dropped", append=True))
    fold.begin_attempt()
    fold.apply(artifact("a", " three", append=True))
    assert fold.output()["text"] == "one two three"
    fold.receive(message("again"))
    fold.begin_attempt()
    fold.apply(artifact("a", "replaced and dropped"))
    fold.begin_attempt()
    assert fold.output()["text"] == "one two three"


def test_a_snapshot_is_a_copy() -> None:
    fold = make_fold()
    before = fold.snapshot()
    before.history[0].parts[0].text = "changed"
    fold.apply(artifact("a", "x"))
    assert not before.artifacts
    assert fold.snapshot().history[0].parts[0].text == "ask"


def test_news_in_a_task_are_what_was_not_known() -> None:
    fold = make_fold()
    fold.apply(artifact("a", "x"))
    fold.apply(status(WORKING, "now", k="v"))
    known = fold.snapshot()
    assert not fold.news_in(known).artifacts
    assert not fold.news_in(known).history
    assert not fold.news_in(known).metadata.fields
    known.artifacts.append(artifact("b", "y").artifact)
    known.history.append(message("note", message_id="note"))
    known.metadata.update({"k": "w", "l": "v"})
    known.status.CopyFrom(TaskStatus(state=TaskState.TASK_STATE_FAILED))
    news = fold.news_in(known)
    assert [item.artifact_id for item in news.artifacts] == ["b"]
    assert [item.message_id for item in news.history] == ["note"]
    assert set(news.metadata.fields) == {"k", "l"}
    assert not news.HasField("status")
    fold.apply(news)
    assert len(fold.snapshot().artifacts) == 2
    assert fold.state == WORKING


# -- agent_output ------------------------------------------------------------------------------------------


def test_streamed_text_is_put_together_and_separate_texts_stay_separate() -> None:
    fold = make_fold()
    fold.apply(artifact("a", "Para", "graph "))
    for word in ("two ", "goes ", "on"):
        fold.apply(artifact("a", word, append=True))
    fold.apply(artifact("b", "other"))
    output = fold.output()
    assert output["artifacts"][0]["parts"] == [{"text": "Para"}, {"text": "graph two goes on"}]
    assert output["text"] == "Para\ngraph two goes on\nother"
    assert len(fold.snapshot().artifacts[0].parts) == 5


def test_joining_stops_at_anything_that_is_not_plain_text() -> None:
    fold = make_fold()
    fold.apply(artifact("a", "one "))
    with_data = artifact("a", append=True)
    with_data.artifact.parts.add().data.string_value = "data"
    fold.apply(with_data)
    fold.apply(artifact("a", "two ", append=True))
    fold.apply(artifact("a", "three", append=True))
    marked = artifact("a", "marked", append=True)
    marked.artifact.parts[0].metadata.update({"k": "v"})
    fold.apply(marked)
    typed = artifact("a", "typed", append=True)
    typed.artifact.parts[0].media_type = "text/markdown"
    fold.apply(typed)
    assert fold.output()["artifacts"][0]["parts"] == [
        {"text": "one "},
        {"data": "data"},
        {"text": "two three"},
        {"text": "marked", "metadata": {"k": "v"}},
        {"text": "typed", "mediaType": "text/markdown"},
    ]


def test_replacing_an_artifact_forgets_where_its_chunks_began() -> None:
    fold = make_fold()
    fold.apply(artifact("a", "1"))
    fold.apply(artifact("a", "2", append=True))
    fold.apply(artifact("a", "3", "4"))
    assert fold.output()["artifacts"][0]["parts"] == [{"text": "3"}, {"text": "4"}]


def test_the_text_is_the_messages_when_no_artifact_has_any() -> None:
    fold = make_fold()
    assert fold.output() == {"text": ""}
    assert fold.output(message("said"))["text"] == "said"
    data_only = artifact("a")
    data_only.artifact.parts.add().data.number_value = 1
    fold.apply(data_only)
    assert fold.output(message("said"))["text"] == "said"
    fold.apply(artifact("b", "written"))
    output = fold.output(Message(message_id="m", parts=[Part(text="said")]))
    assert output["text"] == "written"
    assert output["message"]["parts"] == [{"text": "said"}]


def test_many_chunks_do_not_cost_more_than_their_number() -> None:
    fold = make_fold()
    fold.apply(artifact("a", ""))
    for _ in range(20_000):
        fold.apply(artifact("a", "token ", append=True))
    assert len(fold.output()["text"]) == 120_000
