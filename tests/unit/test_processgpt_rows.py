"""Rows as programs of the predecessor read them: by attribute and by item."""

from __future__ import annotations

import pytest

from reactive_worker.models import Todo, TodoEvent, TodoStatus
from reactive_worker.processgpt import ProcessGPTEvent, ProcessGPTRequestContext, TodoListItem

ROW = {
    "id": "5f0a2c8e-7a52-4f57-9b0a-0c9d9c1c2d3e",
    "agent_type": "t",
    "prompt": "p",
    "agent_status": "completed",
    "agent_output": {"text": "done"},
    "created_at": "2030-01-01T00:00:00+00:00",
    "tenant": "acme",
}


def test_a_todo_reads_like_the_row_it_came_from() -> None:
    todo = TodoListItem.of(Todo.from_row(ROW))
    assert todo["agent_output"] == todo.agent_output == {"text": "done"}
    assert todo["agent_status"] == "completed"
    assert todo["created_at"] == "2030-01-01T00:00:00+00:00"
    # A column of the user's own has no attribute, and is not lost.
    assert todo["tenant"] == "acme"
    assert todo.get("nothing", 7) == 7
    assert "prompt" in todo
    assert "row" not in todo
    with pytest.raises(KeyError):
        todo["nothing"]


def test_a_todo_becomes_a_dict_json_can_hold() -> None:
    row = dict(TodoListItem.of(Todo.from_row(ROW)))
    assert row["tenant"] == "acme"
    assert row["priority"] == 0
    assert row["agent_status"] == TodoStatus.COMPLETED.value


def test_an_event_reads_like_a_row() -> None:
    event = ProcessGPTEvent.of(
        TodoEvent.from_row(
            {
                "id": ROW["id"],
                "todolist_id": ROW["id"],
                "event_type": "task_started",
                "event_data": {},
                "seq": 1,
                "created_at": "2030-01-01T00:00:00+00:00",
            }
        )
    )
    assert event["event_type"] == "task_started"
    assert event["created_at"] == "2030-01-01T00:00:00+00:00"
    assert "outcome" not in event


def test_rows_elsewhere_are_typed_values_and_no_dictionaries() -> None:
    with pytest.raises(TypeError):
        Todo.from_row(ROW)["agent_output"]  # type: ignore[index]
    assert isinstance(TodoListItem.of(Todo.from_row(ROW)), Todo)


def test_a_context_of_the_predecessor_has_such_a_row() -> None:
    context = ProcessGPTRequestContext(Todo.from_row({**ROW, "input_data": {"topic": "AI"}}))
    assert context.todolist_item["input_data"]["topic"] == context.todolist_item.input_data["topic"] == "AI"
