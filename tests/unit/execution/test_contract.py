"""The executor contract, one test for each thing an executor may do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import RequestContext
from a2a.server.events import EventQueue
from a2a.types import Message, Task, TaskState, TaskStatus
from a2a.utils.errors import InvalidAgentResponseError, InvalidParamsError

from reactive_worker.errors import EventRefusedError, EventTooLargeError
from reactive_worker.execution import Limits
from reactive_worker.models import EventType
from tests.unit.execution.fakes import (
    CONTEXT,
    ID,
    LogBook,
    Scripted,
    artifact,
    make_runner,
    make_todo,
    message,
    publisher,
    run,
    status,
    updater,
)
from tests.unit.execution.virtual_time import virtual_time

WORKING = TaskState.TASK_STATE_WORKING
COMPLETED = TaskState.TASK_STATE_COMPLETED
FAILED = TaskState.TASK_STATE_FAILED
REJECTED = TaskState.TASK_STATE_REJECTED
CANCELED = TaskState.TASK_STATE_CANCELED
SUBMITTED = TaskState.TASK_STATE_SUBMITTED
INPUT = TaskState.TASK_STATE_INPUT_REQUIRED
AUTH = TaskState.TASK_STATE_AUTH_REQUIRED


# -- the legal shapes --------------------------------------------------------------------------------------


@virtual_time
async def test_a_direct_reply_completes_the_task_with_its_message() -> None:
    ran = await run(publisher(message("forty-two")))
    assert ran.types == ["task_completed"]
    assert ran.last.event_data["message"]["parts"] == [{"text": "forty-two"}]
    assert ran.last.message == "forty-two"
    assert ran.last.task_state == "TASK_STATE_COMPLETED"
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "forty-two"
    assert ran.outcome.output["message"]["messageId"] == "m"


@virtual_time
async def test_a_tracked_task_is_recorded_update_by_update() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert context.message is not None
        await queue.enqueue_event(new_task_from_user_message(context.message))
        up = updater(queue)
        await up.start_work(message("thinking"))
        await queue.enqueue_event(artifact("answer", "for"))
        await queue.enqueue_event(artifact("answer", "ty", append=True, last_chunk=True))
        await up.complete(message("done"))

    ran = await run(execute)
    # The Task itself is not relayed: the row is the task, and its start was written by the claim.
    assert ran.types == ["task_progress", "task_artifact", "task_artifact", "task_completed"]
    assert [event.message for event in ran.events] == ["thinking", "for", "ty", "done"]
    assert [event.task_state for event in ran.events] == [
        "TASK_STATE_WORKING",
        None,
        None,
        "TASK_STATE_COMPLETED",
    ]
    assert {(event.todolist_id, event.attempt) for event in ran.events} == {(ID, 1)}
    assert {(event.task_id, event.context_id) for event in ran.events} == {(ID, CONTEXT)}
    assert ran.outcome.output["text"] == "forty"
    assert ran.outcome.output["artifacts"] == [{"artifactId": "answer", "parts": [{"text": "forty"}]}]
    assert ran.outcome.output["message"]["parts"] == [{"text": "done"}]


@pytest.mark.parametrize(
    ("state", "event_type", "kind", "error_type"),
    [
        (COMPLETED, "task_completed", "completed", None),
        (FAILED, "task_failed", "failed", "TaskFailed"),
        (REJECTED, "task_rejected", "failed", "TaskRejected"),
        (CANCELED, "task_cancelled", "cancelled", None),
    ],
)
@virtual_time
async def test_a_terminal_state_decides_the_outcome(
    state: TaskState, event_type: str, kind: str, error_type: str | None
) -> None:
    ran = await run(publisher(status(state, "because")))
    assert ran.types == [event_type]
    assert ran.outcome.kind == kind
    assert ran.outcome.task_state == ran.last.task_state == TaskState.Name(state)
    assert ran.last.message == "because"
    if error_type is None:
        assert ran.outcome.error is None
    else:
        assert ran.outcome.error == {"type": error_type, "message": "because"}
        assert ran.outcome.output == {"error": {"type": error_type, "message": "because"}}


@pytest.mark.parametrize(
    ("state", "event_type"), [(INPUT, "task_input_required"), (AUTH, "task_auth_required")]
)
@virtual_time
async def test_an_interrupted_state_parks_the_task_when_execute_returns(
    state: TaskState, event_type: str
) -> None:
    ran = await run(publisher(status(WORKING), status(state, "which one?")))
    assert ran.types == ["task_progress", event_type]
    assert ran.outcome.kind == "input_required"
    assert ran.outcome.output is None
    assert ran.outcome.task_state == ran.last.task_state == TaskState.Name(state)
    assert ran.last.message == "which one?"


# -- what the SDK refuses and we accept --------------------------------------------------------------------


@virtual_time
async def test_updates_without_a_task_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    executor = Scripted(publisher(status(WORKING), artifact("a", "x"), status(COMPLETED)))
    runner = make_runner(executor)
    for _ in range(3):
        await runner.start(make_todo(), lambda event: None).wait()
    assert runner.implicit_tasks == {"test": 3}
    assert sum("without a Task" in record.message for record in caplog.records) == 1


@virtual_time
async def test_an_artifact_before_anything_else_is_accepted() -> None:
    ran = await run(publisher(artifact("a", "x")))
    assert ran.types == ["task_artifact", "task_completed"]
    assert ran.outcome.output["text"] == "x"


# -- Task events -------------------------------------------------------------------------------------------


@virtual_time
async def test_a_first_task_may_say_everything_at_once() -> None:
    task = Task(
        id=ID,
        context_id="someone else's",
        status=TaskStatus(state=COMPLETED, message=message("all done")),
        artifacts=[artifact("a", "result").artifact],
    )
    ran = await run(publisher(task))
    assert ran.types == ["task_artifact", "task_completed"]
    assert ran.last.event_data["statusUpdate"]["contextId"] == CONTEXT
    assert ran.outcome.output["text"] == "result"
    assert ran.outcome.output["message"]["parts"] == [{"text": "all done"}]


@virtual_time
async def test_a_second_task_adds_what_is_new_and_never_its_status(caplog: pytest.LogCaptureFixture) -> None:
    second = Task(
        id=ID,
        status=TaskStatus(state=COMPLETED),
        artifacts=[artifact("old", "changed").artifact, artifact("new", "fresh").artifact],
        history=[message("a note", message_id="note")],
    )
    second.metadata.update({"model": "m1"})
    ran = await run(publisher(Task(id=ID), artifact("old", "kept"), second, status(FAILED, "no")))
    assert ran.types == ["task_artifact", "task_artifact", "task_progress", "task_failed"]
    assert ran.events[1].event_data["artifactUpdate"]["artifact"]["artifactId"] == "new"
    news = ran.events[2].event_data["task"]
    assert news["status"]["state"] == "TASK_STATE_WORKING"
    assert news["metadata"] == {"model": "m1"}
    assert [item["messageId"] for item in news["history"]] == ["note"]
    assert ran.outcome.kind == "failed"
    assert "does not count" in caplog.text


@virtual_time
async def test_the_task_sent_again_after_an_answer_changes_nothing() -> None:
    log = LogBook().started().said(status(INPUT, "which?"), "task_input_required").answered("that").started()

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert context.current_task is not None
        await queue.enqueue_event(context.current_task)
        await updater(queue).complete()

    ran = await run(execute, log.todo(), load_events=log.load)
    assert ran.types == ["task_completed"]


# -- breaking the protocol ---------------------------------------------------------------------------------


async def _raises(queue: EventQueue, event: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await queue.enqueue_event(event)


@pytest.mark.parametrize(
    ("before", "wrong", "error"),
    [
        ([status(WORKING)], message(), InvalidAgentResponseError),
        ([artifact("a", "x")], message(), InvalidAgentResponseError),
        ([Task(id=ID)], message(), InvalidAgentResponseError),
        ([message("one")], message("two"), InvalidAgentResponseError),
        ([message("one")], status(COMPLETED), InvalidAgentResponseError),
        ([message("one")], artifact("a", "x"), InvalidAgentResponseError),
        ([message("one")], Task(id=ID), InvalidAgentResponseError),
        ([], artifact("never made", "x", append=True), InvalidAgentResponseError),
    ],
)
@virtual_time
async def test_a_broken_protocol_fails_the_task_for_good(
    before: list[Any], wrong: Any, error: type[Exception]
) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        for event in before:
            await queue.enqueue_event(event)
        # Even an executor that shrugs it off has failed.
        await _raises(queue, wrong, error)

    ran = await run(execute)
    assert ran.outcome.kind == "failed"
    assert ran.last.event_type == EventType.FAILED
    assert ran.outcome.error is not None
    assert ran.outcome.error["type"] == error.__name__
    assert all(event.event_type != EventType.COMPLETED for event in ran.events)


@virtual_time
async def test_a_message_in_a_later_turn_breaks_the_protocol() -> None:
    log = LogBook().started().said(status(INPUT, "which?"), "task_input_required").answered("that").started()
    ran = await run(publisher(message()), log.todo(), load_events=log.load)
    assert ran.outcome.kind == "failed"


@pytest.mark.parametrize(
    "event",
    [
        Task(id="another"),
        Message(message_id="m", task_id="another"),
        type(status(WORKING))(task_id="another", status=TaskStatus(state=COMPLETED)),
        type(artifact("a"))(task_id="another", artifact=artifact("a", "x").artifact),
    ],
)
@virtual_time
async def test_nothing_is_ever_written_to_another_task(event: Any) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await _raises(queue, event, InvalidParamsError)

    ran = await run(execute)
    assert ran.types == ["task_failed"]
    assert ran.outcome.error is not None
    assert ran.outcome.error["type"] == "InvalidParamsError"
    assert ran.last.event_data["statusUpdate"]["taskId"] == ID


@virtual_time
async def test_another_context_is_overwritten_with_the_rows() -> None:
    event = status(WORKING, "hm")
    event.context_id = "invented"
    event.status.message.context_id = "invented"
    wrong = artifact("a", "x")
    wrong.context_id = "invented"
    ran = await run(publisher(event, wrong))
    assert ran.events[0].event_data["statusUpdate"]["contextId"] == CONTEXT
    assert ran.events[0].event_data["statusUpdate"]["status"]["message"]["contextId"] == CONTEXT
    assert ran.events[1].event_data["artifactUpdate"]["contextId"] == CONTEXT


# -- returning ---------------------------------------------------------------------------------------------


@virtual_time
async def test_returning_while_working_completes_and_says_it_is_implied() -> None:
    ran = await run(publisher(status(WORKING), artifact("a", "partial")))
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "partial"
    assert ran.last.event_data["statusUpdate"]["metadata"] == {"reactive_worker": {"implied": True}}


@virtual_time
async def test_returning_without_a_word_completes_with_empty_output() -> None:
    ran = await run(publisher())
    assert ran.types == ["task_completed"]
    assert ran.outcome.output == {"text": ""}
    assert ran.last.event_data["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@virtual_time
async def test_going_on_after_a_question_means_it_is_not_parked() -> None:
    ran = await run(publisher(status(INPUT, "which?"), status(WORKING, "never mind")))
    assert ran.types == ["task_progress", "task_progress", "task_completed"]
    assert ran.outcome.kind == "completed"


@virtual_time
async def test_a_question_is_shown_only_together_with_the_parked_row() -> None:
    seen: list[list[str]] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).requires_input(message("which?"))
        await asyncio.sleep(3600)
        seen.append(ran_types())

    events: list[Any] = []

    def ran_types() -> list[str]:
        return [str(event.event_type) for event in events]

    task_run = make_runner(Scripted(execute)).start(make_todo(), events.append)
    await task_run.wait()
    assert seen == [[]]
    assert ran_types() == ["task_input_required"]


@virtual_time
async def test_auth_required_out_of_band_is_shown_while_execute_keeps_running() -> None:
    events: list[Any] = []
    shown: list[int] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).requires_auth(message("log in at https://example.org"))
        await asyncio.sleep(60)
        shown.append(len(events))
        await queue.enqueue_event(artifact("a", "secret"))
        await updater(queue).complete()

    task_run = make_runner(Scripted(execute)).start(make_todo(), events.append)
    await task_run.wait()
    assert shown == [1]
    assert [str(event.event_type) for event in events] == [
        "task_auth_required",
        "task_artifact",
        "task_completed",
    ]


@virtual_time
async def test_auth_required_shown_early_still_parks_on_return() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).requires_auth(message("log in"))
        await asyncio.sleep(60)

    ran = await run(execute)
    assert ran.types == ["task_auth_required", "task_auth_required"]
    assert ran.outcome.kind == "input_required"
    assert ran.events[0].id != ran.events[1].id
    assert ran.events[0].event_data == ran.events[1].event_data


@virtual_time
async def test_an_artifact_after_the_question_keeps_it_parked() -> None:
    ran = await run(publisher(status(INPUT, "this one?"), artifact("draft", "x")))
    assert ran.types == ["task_progress", "task_artifact", "task_input_required"]
    assert ran.outcome.kind == "input_required"


# -- after the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [status(WORKING), status(FAILED), artifact("a", "x"), message(), Task(id=ID), status(COMPLETED, "again")],
)
@virtual_time
async def test_terminal_is_final(late: Any, caplog: pytest.LogCaptureFixture) -> None:
    ran = await run(publisher(status(COMPLETED, "done"), late, late))
    assert ran.types == ["task_completed"]
    assert ran.last.message == "done"
    assert sum("dropped" in record.message for record in caplog.records) == 1


@virtual_time
async def test_the_end_is_told_when_it_is_published_not_when_execute_returns() -> None:
    events: list[Any] = []

    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await updater(queue).complete()
        assert len(events) == 1
        await asyncio.sleep(5)

    task_run = make_runner(Scripted(execute)).start(make_todo(), events.append)
    await asyncio.sleep(1)
    assert task_run.outcome is not None
    assert not task_run.done
    await task_run.wait()
    assert len(events) == 1


# -- events that cannot be stored --------------------------------------------------------------------------


def _nan() -> Any:
    return status(WORKING, "x", value=float("nan"))


def _infinite_artifact() -> Any:
    event = artifact("a")
    event.artifact.parts.add().data.number_value = float("inf")
    return event


def _deep() -> Any:
    event = artifact("a")
    value = event.artifact.parts.add().data
    for _ in range(60):
        value = value.list_value.values.add()
    value.string_value = "bottom"
    return event


@pytest.mark.parametrize(
    "event",
    [
        _nan(),
        _infinite_artifact(),
        _deep(),
        status(TaskState.TASK_STATE_UNSPECIFIED),
        type(status(WORKING))(task_id=ID, status=TaskStatus(state=99)),  # pyright: ignore[reportArgumentType]
        artifact("", "x"),
        artifact("a"),
        artifact("a", "x" * 2000),
    ],
    ids=["nan", "infinity", "deep", "unspecified", "unknown state", "no id", "no parts", "too large"],
)
@virtual_time
async def test_an_event_that_cannot_be_stored_is_refused_and_the_run_goes_on(event: Any) -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await _raises(queue, event, ValueError)
        await _raises(queue, event, EventRefusedError)
        await updater(queue).complete()

    ran = await run(execute, limits=Limits(event_bytes=1500))
    assert ran.types == ["task_completed"]


@virtual_time
async def test_a_long_prompt_sent_back_as_the_task_counts_for_nothing() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        assert context.message is not None
        task = new_task_from_user_message(context.message)
        await queue.enqueue_event(task)
        task.history.append(message("y" * 2000))
        await _raises(queue, task, EventTooLargeError)
        await updater(queue).complete()

    ran = await run(execute, make_todo(prompt="x" * 5000), limits=Limits(event_bytes=1500))
    assert ran.types == ["task_completed"]


@virtual_time
async def test_an_uncaught_refusal_is_a_failure_like_any_other() -> None:
    ran = await run(publisher(_nan()))
    assert ran.outcome.kind == "retry"
    assert ran.outcome.error is not None
    assert ran.outcome.error["type"] == "EventRefusedError"


@virtual_time
async def test_all_artifacts_together_are_bounded_too() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        await queue.enqueue_event(artifact("a", "x" * 400))
        # Replacing does not add up.
        for _ in range(10):
            await queue.enqueue_event(artifact("a", "y" * 400))
        await queue.enqueue_event(artifact("a", "z" * 400, append=True))
        await _raises(queue, artifact("b", "x" * 400), EventTooLargeError)

    ran = await run(execute, limits=Limits(event_bytes=1000, output_bytes=1000))
    assert ran.outcome.kind == "completed"
    assert len(ran.outcome.output["text"]) == 800


@virtual_time
async def test_nul_is_replaced_wherever_it_stands() -> None:
    event = artifact("a", "one\0two")
    event.artifact.parts.add().data.struct_value.update({"k\0ey": ["v\0"]})
    ran = await run(publisher(event, status(COMPLETED, "do\0ne")))
    assert ran.events[0].message == "one\ufffdtwo"
    assert ran.events[0].event_data["artifactUpdate"]["artifact"]["parts"] == [
        {"text": "one\ufffdtwo"},
        {"data": {"k\ufffdey": ["v\ufffd"]}},
    ]
    assert ran.last.message == "do\ufffdne"
    assert "\0" not in repr(ran.outcome.output)
    assert "\\x00" not in repr(ran.outcome.output)


@virtual_time
async def test_an_empty_last_chunk_is_accepted() -> None:
    ran = await run(publisher(artifact("a", "x"), artifact("a", append=True, last_chunk=True)))
    assert ran.outcome.output["text"] == "x"


@virtual_time
async def test_submitted_never_takes_a_started_task_back() -> None:
    ran = await run(publisher(status(SUBMITTED), status(SUBMITTED, "queued upstream")))
    assert ran.types == ["task_progress", "task_completed"]
    assert ran.events[0].task_state == "TASK_STATE_WORKING"
    assert ran.events[0].event_data["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"


@virtual_time
async def test_statuses_are_stamped_and_messages_completed_on_arrival() -> None:
    bare = status(WORKING, "x")
    bare.status.message.message_id = ""
    bare.status.message.ClearField("role")
    ran = await run(publisher(bare))
    stored = ran.events[0].event_data["statusUpdate"]["status"]
    assert stored["timestamp"] == "2026-01-01T00:00:00Z"
    assert stored["message"]["messageId"]
    assert stored["message"]["role"] == "ROLE_AGENT"


@virtual_time
async def test_events_are_copied_so_executors_may_reuse_theirs() -> None:
    async def execute(context: RequestContext, queue: EventQueue) -> None:
        event = artifact("a", "0")
        for number in range(3):
            event.artifact.parts[0].text = str(number)
            event.append = number > 0
            await queue.enqueue_event(event)

    ran = await run(execute)
    assert [event.message for event in ran.events] == ["0", "1", "2", None]
    assert ran.outcome.output["text"] == "012"
