"""The request context: a2a's, with the row in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from a2a.server.agent_execution import RequestContext
from a2a.types import Message, Part, SendMessageRequest, Task, TaskState, TaskStatus
from a2a.utils.errors import InvalidParamsError

from reactive_worker.execution import TodoRequestContext, read_log
from reactive_worker.execution._a2a import set_request
from tests.unit.execution.fakes import CONTEXT, ID, LogBook, make_todo, message, status


def test_it_is_a_real_request_context_of_the_row() -> None:
    todo = make_todo(prompt="summarise", input_data={"pages": 3, "id": 2**60}, attempt=2, owner_id="u1")
    context = TodoRequestContext(todo)
    assert isinstance(context, RequestContext)
    assert context.get_user_input() == "summarise"
    assert (context.task_id, context.context_id) == (ID, CONTEXT)
    assert context.current_task is None
    assert context.todolist_item is todo
    # Exactly as submitted: A2A's own data parts turn integers into floats.
    assert context.input_data == {"pages": 3, "id": 2**60}
    assert isinstance(context.input_data["pages"], int)
    assert context.attempt == 2
    assert context.reason == "first"
    state = context.call_context.state
    assert (state["todo"], state["attempt"], state["input_data"]) == (todo, 2, todo.input_data)
    assert context.call_context.user.is_authenticated
    assert context.call_context.user.user_name == "u1"
    assert context.tenant == ""


def test_a_row_without_owner_and_context_has_defaults() -> None:
    context = TodoRequestContext(make_todo(context_id=None))
    assert context.context_id == ID
    assert not context.call_context.user.is_authenticated
    assert context.call_context.user.user_name == ""


@pytest.mark.parametrize("input_data", [None, {}, [], 0, ""])
def test_empty_input_data_makes_no_part(input_data: object) -> None:
    context = TodoRequestContext(make_todo(input_data=input_data))
    assert context.message is not None
    assert len(context.message.parts) == 1
    assert context.input_data == input_data


@pytest.mark.parametrize("input_data", [[1, 2], "text", 7, True, {"a": None}])
def test_any_json_can_be_input_data(input_data: object) -> None:
    context = TodoRequestContext(make_todo(input_data=input_data))
    assert context.message is not None
    assert context.message.parts[1].HasField("data")


def test_a_message_or_request_of_its_own_replaces_the_prompt() -> None:
    answer = message("that one")
    context = TodoRequestContext(make_todo(), message=answer)
    assert context.get_user_input() == "that one"
    assert answer.task_id == ""  # The caller's copy is left alone.
    request = SendMessageRequest(
        message=Message(parts=[Part(text="a"), Part(text="b")], extensions=["urn:x"])
    )
    request.metadata.update({"n": 7})
    context = TodoRequestContext(make_todo(), request=request)
    assert context.get_user_input() == "a\nb"
    assert context.metadata == {"n": 7.0}
    assert context.requested_extensions == {"urn:x"}


def test_a_task_of_another_row_is_refused() -> None:
    with pytest.raises(InvalidParamsError):
        TodoRequestContext(make_todo(), task=Task(id="another", context_id=CONTEXT))


def test_the_cancel_context_shares_everything_but_the_message() -> None:
    class Mine(TodoRequestContext):
        def pages(self) -> int:
            return self.input_data["pages"]

    context = Mine(make_todo(input_data={"pages": 3}))
    task = Task(id=ID, context_id=CONTEXT, status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
    cancel = context.for_cancel(task)
    assert cancel.pages() == 3
    assert cancel.message is None
    assert cancel.configuration is None
    assert cancel.current_task is task
    assert context.message is not None
    assert context.current_task is None
    context.request_stop()
    assert cancel.stop_requested
    assert cancel.wait_for_stop(0)


def test_a_context_class_that_takes_the_row_alone_can_be_continued() -> None:
    class Mine(TodoRequestContext):
        def __init__(self, todolist_item: object) -> None:
            super().__init__(todolist_item)  # pyright: ignore[reportArgumentType]

    log = LogBook().started().said(status(TaskState.TASK_STATE_INPUT_REQUIRED, "?"), "task_input_required")
    log.answered("yes").started()
    context = Mine(log.todo()).continue_from(read_log(log.todo(), log.events))
    assert isinstance(context, Mine)
    assert context.get_user_input() == "yes"
    assert context.reason == "answer"
    assert context.current_task is not None
    assert context.current_task.status.message.parts[0].text == "?"
    assert context.message is not None
    assert (context.message.task_id, context.message.context_id) == (ID, CONTEXT)


def test_continuing_puts_the_rows_ids_into_whatever_request_it_gets() -> None:
    log = LogBook().started()
    conversation = replace(
        read_log(log.todo(), log.events),
        request=SendMessageRequest(message=Message(task_id="x", parts=[Part(text="by hand")])),
    )
    context = TodoRequestContext(log.todo()).continue_from(conversation)
    assert context.message is not None
    assert (context.message.task_id, context.message.context_id) == (ID, CONTEXT)
    assert conversation.request.message.task_id == "x"


def test_the_private_attribute_of_a2a_is_what_it_was() -> None:
    """What `execution._a2a` sets is what a2a's own properties read, in the version that is installed."""
    context = TodoRequestContext(make_todo())
    set_request(context, SendMessageRequest(message=Message(message_id="other", parts=[Part(text="again")])))
    assert context.message is not None
    assert (context.message.message_id, context.get_user_input()) == ("other", "again")
    set_request(context, None)
    assert (context.message, context.get_user_input()) == (None, "")
