"""Reading a log for the next turn, and turns run on top of it."""

from __future__ import annotations

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import Role, TaskState
from google.protobuf.json_format import MessageToDict

from reactive_worker.errors import InvalidTaskError
from reactive_worker.execution import TodoRequestContext, fold_events, read_log
from reactive_worker.execution.conversation import new_conversation
from reactive_worker.models import MOST_LEVELS, EventType
from tests.unit.execution.fakes import (
    CONTEXT,
    ID,
    LogBook,
    artifact,
    make_todo,
    message,
    publisher,
    run,
    status,
    updater,
)
from tests.unit.execution.virtual_time import virtual_time

WORKING = TaskState.TASK_STATE_WORKING
INPUT = TaskState.TASK_STATE_INPUT_REQUIRED


def texts(task: object) -> list[str]:
    return [item.parts[0].text for item in task.history]  # pyright: ignore


def parked() -> LogBook:
    return LogBook().started().said(artifact("draft", "v1")).said(status(INPUT, "ok?"), "task_input_required")


def test_a_first_run_has_no_task_and_the_prompt_as_its_message() -> None:
    log = LogBook().started()
    conversation = read_log(log.todo(input_data={"n": 1}), log.events)
    assert conversation.current_task is None
    assert conversation.reason == "first"
    assert conversation.answers == 0
    sent = conversation.request.message
    assert (sent.message_id, sent.role, sent.task_id, sent.context_id) == (ID, Role.ROLE_USER, ID, CONTEXT)
    assert [MessageToDict(part) for part in sent.parts] == [{"text": "hello"}, {"data": {"n": 1.0}}]


def test_an_answer_is_the_message_and_the_question_is_still_open_in_current_task() -> None:
    log = parked().answered("yes").started()
    conversation = read_log(log.todo(), log.events)
    assert conversation.reason == "answer"
    assert conversation.answers == 1
    assert conversation.request.message.parts[0].text == "yes"
    task = conversation.current_task
    assert task is not None
    assert task.status.state == INPUT
    assert task.status.message.parts[0].text == "ok?"
    assert texts(task) == ["hello"]
    assert task.artifacts[0].parts[0].text == "v1"
    # What this run builds on already holds the answer.
    assert texts(conversation.fold.snapshot()) == ["hello", "ok?", "yes"]
    assert conversation.fold.state == WORKING


def test_a_rerun_of_an_answered_turn_starts_like_its_first_run() -> None:
    log = parked().answered("yes").started()
    first = read_log(log.todo(), log.events)
    log.said(artifact("draft", "v2", append=True)).said(status(WORKING, "hm")).retrying().started()
    again = read_log(log.todo(), log.events)
    assert again.reason == "rerun"
    assert again.request == first.request
    assert again.current_task == first.current_task
    assert [part.text for part in again.fold.snapshot().artifacts[0].parts] == ["v1"]


def test_a_rerun_of_the_first_turn_has_a_task_if_the_executor_had_spoken() -> None:
    log = LogBook().started().retrying().started()
    assert read_log(log.todo(), log.events).current_task is None
    assert read_log(log.todo(), log.events).reason == "rerun"

    log = LogBook().started().said(artifact("a", "x")).said(status(WORKING, "note")).retrying().started()
    conversation = read_log(log.todo(), log.events)
    assert conversation.answers == 0
    assert conversation.current_task is not None
    assert not conversation.current_task.artifacts
    assert conversation.current_task.status.state == WORKING
    assert conversation.request.message.parts[0].text == "hello"


@pytest.mark.parametrize("event_type", ["task_lost", "task_released", "task_retried"])
def test_lost_released_and_retried_attempts_are_abandoned_alike(event_type: str) -> None:
    log = LogBook().started().said(artifact("a", "x")).add(event_type, {"workerId": "w"}).started()
    assert not read_log(log.todo(), log.events).fold.snapshot().artifacts


def test_equal_message_ids_lose_no_answer() -> None:
    log = parked().answered("one").started().said(status(INPUT, "and?"), "task_input_required")
    log.answered("two").started()
    conversation = read_log(log.todo(), log.events)
    assert conversation.answers == 2
    assert texts(conversation.fold.snapshot()) == ["hello", "ok?", "one", "and?", "two"]
    assert conversation.current_task is not None
    assert texts(conversation.current_task) == ["hello", "ok?", "one"]


def test_the_request_of_the_client_is_kept_whole() -> None:
    data = {
        "message": {
            "messageId": "m1",
            "role": "ROLE_USER",
            "taskId": "made up by the client",
            "parts": [{"text": "look"}, {"url": "https://example.org/a.png", "mediaType": "image/png"}],
            "referenceTaskIds": ["other"],
        },
        "configuration": {"acceptedOutputModes": ["text/plain"]},
        "metadata": {"trace": "t1"},
        "laterVersion": True,
    }
    log = LogBook().add(EventType.MESSAGE_RECEIVED, data).started()
    conversation = read_log(log.todo(), log.events)
    assert conversation.reason == "first"
    assert conversation.answers == 0
    assert conversation.current_task is None
    request = conversation.request
    assert (request.message.task_id, request.message.context_id) == (ID, CONTEXT)
    assert request.message.parts[1].url == "https://example.org/a.png"
    assert list(request.message.reference_task_ids) == ["other"]
    assert list(request.configuration.accepted_output_modes) == ["text/plain"]
    assert request.metadata.fields["trace"].string_value == "t1"
    assert [item.message_id for item in conversation.fold.snapshot().history] == ["m1"]


def test_an_answer_without_role_or_id_is_a_users_message() -> None:
    log = parked().add(EventType.MESSAGE_RECEIVED, {"message": {"parts": [{"text": "yes"}]}}).started()
    sent = read_log(log.todo(), log.events).request.message
    assert sent.role == Role.ROLE_USER
    assert sent.message_id == log.events[3].id


def test_a_log_that_lacks_the_newest_start_is_read_as_if_it_had_it() -> None:
    log = LogBook().started().said(artifact("a", "x")).retrying()
    conversation = read_log(make_todo(attempt=2, seq=4), log.events)
    assert conversation.reason == "rerun"
    assert conversation.fold.state == WORKING
    assert not conversation.fold.snapshot().artifacts
    # A finished task is not started again by being looked at.
    log = LogBook().started().said(artifact("a", "x"))
    task = fold_events(make_todo(attempt=2, agent_status="failed"), log.events)
    assert task is not None
    assert len(task.artifacts) == 1


def test_order_comes_from_seq() -> None:
    log = parked().answered("yes").started()
    assert read_log(log.todo(), reversed(log.events)).reason == "answer"


def test_what_cannot_be_read_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = LogBook().started()
    log.add("task_progress", {"statusUpdate": {"status": {"state": 3, "timestamp": "yesterday"}}})
    log.add("task_progress", {"note": "of a later version"})
    log.add("task_artifact", {"artifactUpdate": {"artifact": {"artifactId": "x"}, "append": True}})
    log.add(EventType.MESSAGE_RECEIVED, {"text": "no message"})
    log.add(EventType.MESSAGE_RECEIVED, {"message": {"parts": "none"}})
    log.said(artifact("a", "kept"))
    conversation = read_log(make_todo(attempt=1, seq=7), log.events)
    assert [item.artifact_id for item in conversation.fold.snapshot().artifacts] == ["a"]
    assert conversation.answers == 0
    assert len([record for record in caplog.records if "left out" in record.message]) == 4


def test_fold_events_is_the_task_as_readers_see_it() -> None:
    assert fold_events(make_todo(), []) is None
    log = parked()
    task = fold_events(log.todo(agent_status="input_required"), log.events)
    assert task is not None
    assert (task.id, task.context_id) == (ID, CONTEXT)
    assert task.status.state == INPUT
    log.answered("yes").started().add("task_completed", {"message": MessageToDict(message("fine"))})
    task = fold_events(log.todo(agent_status="completed"), log.events)
    assert task is not None
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert task.status.message.parts[0].text == "fine"
    assert texts(task) == ["hello", "ok?", "yes"]


@pytest.mark.parametrize("levels", [34, 95, 5000])
def test_input_data_too_deep_for_a2a_makes_no_message_and_shows_all_the_same(levels: int) -> None:
    deep: dict[str, object] = {}
    for _ in range(levels):
        deep = {"x": deep}
    todo = make_todo(input_data=deep)
    with pytest.raises(InvalidTaskError, match=r"input_data cannot be given to an agent.*nested too deeply"):
        new_conversation(todo)
    task = fold_events(todo, LogBook().started().events)
    assert task is not None
    assert texts(task) == ["hello"]


def nested(levels: int, kind: type) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"x": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize("levels", [1, 29, 30, 31, 32, 33, 46, 47, 95, 600, 5000])
async def test_whatever_depth_a_run_begins_with_it_goes_on_with(levels: int, kind: type) -> None:
    """What is taken can be put into history, metadata of a log and a request; what is not is refused."""
    data = nested(levels, kind)
    ran = await run(publisher(), make_todo(input_data=data))
    assert ran.outcome.kind == ("completed" if levels <= MOST_LEVELS else "retry")
    assert levels <= MOST_LEVELS or "nested too deeply" in str(ran.outcome.error)
    log = parked().add(EventType.MESSAGE_RECEIVED, {"message": {"parts": [{"data": data}]}}).started()
    again = await run(publisher(), log.todo(), load_events=log.load)
    assert again.outcome.kind == ran.outcome.kind


UNREADABLE = [
    {"message": {"parts": [123]}},
    {"message": {"parts": [{"data": [[]]}], "metadata": 5}},
    {"message": "gone"},
    {},
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_run_without_the_answer_it_was_given_does_not_begin(data: dict[str, object]) -> None:
    log = parked().add(EventType.MESSAGE_RECEIVED, data).started()
    with pytest.raises(InvalidTaskError, match="the answer cannot be given to an agent"):
        read_log(log.todo(), log.events, for_run=True)
    # Shown it is, and a later answer that can be read takes its place.
    assert read_log(log.todo(), log.events).answers == 0
    log.said(status(INPUT, "again?"), EventType.INPUT_REQUIRED).answered("yes").started()
    assert read_log(log.todo(), log.events, for_run=True).answers == 1


def test_an_answer_is_told_as_it_was_sent() -> None:
    sent = {"id": 2**53 + 1, "n": 5, "long": -(10**400), "x": 0.5, "yes": True, "of": [2**60, {"k": 7.0}]}
    log = parked().add(EventType.MESSAGE_RECEIVED, {"message": {"parts": [{"data": sent}]}}).started()
    conversation = read_log(log.todo(), log.events, for_run=True)
    assert conversation.data == (sent,)
    (part,) = conversation.request.message.parts
    told = MessageToDict(part)["data"]
    # A2A has floats only: what they cannot hold is there as its digits.
    assert told["id"] == "9007199254740993"
    assert told["long"] == "-1" + "0" * 400
    assert told["of"][0] == str(2**60)
    assert (told["n"], told["x"], told["yes"]) == (5.0, 0.5, True)


# -- turns, run one after another --------------------------------------------------------------------------


@virtual_time
async def test_a_conversation_of_five_turns() -> None:
    log = LogBook()
    seen: list[tuple[str, list[str], str]] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert isinstance(context, TodoRequestContext)
        task = context.current_task
        prompt = task.status.message.parts[0].text if task is not None else ""
        seen.append((context.get_user_input(), [] if task is None else texts(task), prompt))
        turn = len(seen)
        await queue.enqueue_event(artifact(f"part {turn}", str(turn)))
        if turn < 5:
            await updater(queue).requires_input(message(f"question {turn}", message_id=f"q{turn}"))
        else:
            await updater(queue).complete()

    for turn in range(1, 6):
        log.started()
        ran = await run(execute, log.todo(), load_events=log.load)
        log.extend(ran.events)
        if turn < 5:
            assert ran.outcome.kind == "input_required"
            log.answered(f"answer {turn}")
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "1\n2\n3\n4\n5"
    assert seen[0] == ("hello", [], "")
    assert seen[4] == (
        "answer 4",
        ["hello", "question 1", "answer 1", "question 2", "answer 2", "question 3", "answer 3"],
        "question 4",
    )
    task = fold_events(log.todo(), log.events)
    assert task is not None
    assert texts(task)[-2:] == ["question 4", "answer 4"]


@virtual_time
async def test_a_request_logged_before_the_first_attempt_is_found() -> None:
    log = LogBook().answered("the client's own words").started()
    seen: list[str] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert context.current_task is None
        seen.append(context.get_user_input())

    todo = log.todo()
    assert todo.attempt == 1
    await run(execute, todo, load_events=log.load)
    assert seen == ["the client's own words"]


@virtual_time
async def test_a_rerun_of_the_first_turn_may_still_answer_with_one_message() -> None:
    log = LogBook().started().said(status(WORKING, "starting")).retrying().started()
    ran = await run(publisher(message("forty-two")), log.todo(), load_events=log.load)
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "forty-two"


@virtual_time
async def test_appending_to_an_artifact_of_the_abandoned_attempt_is_an_error() -> None:
    log = LogBook().started().said(artifact("a", "x")).retrying().started()
    ran = await run(publisher(artifact("a", "y", append=True)), log.todo(), load_events=log.load)
    assert ran.outcome.kind == "failed"
