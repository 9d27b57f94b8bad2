"""EchoExecutor: what demos and tests can make it do."""

from __future__ import annotations

import pytest

from reactive_worker.executors.echo import EchoExecutor, split
from tests.unit.execution.fakes import LogBook, after, make_todo, run
from tests.unit.execution.virtual_time import now, virtual_time


@virtual_time
async def test_it_streams_the_prompt_back() -> None:
    ran = await run(EchoExecutor(), make_todo(prompt="one two three four five six"))
    assert ran.types == ["task_artifact"] * 3 + ["task_completed"]
    assert ran.outcome.output["text"] == "one two three four five six"
    assert ran.outcome.output["artifacts"][0]["artifactId"] == "echo"


@virtual_time
async def test_delay_waits_before_each_chunk() -> None:
    await run(EchoExecutor(), make_todo(prompt="a b c d", input_data={"delay": 0.5}))
    assert now() == 2


@pytest.mark.parametrize(
    ("input_data", "attempt", "kind"),
    [
        ({"fail": "no"}, 1, "retry"),
        ({"fail": "no"}, 9, "retry"),
        ({"fail": "no", "fail_attempts": 2}, 2, "retry"),
        ({"fail": "no", "fail_attempts": 2}, 3, "completed"),
        ({"fail": "no", "permanent": True}, 1, "failed"),
        ({"fail": ""}, 1, "completed"),
        ("no options", 1, "completed"),
    ],
)
@virtual_time
async def test_it_fails_when_told(input_data: object, attempt: int, kind: str) -> None:
    ran = await run(EchoExecutor(), make_todo(input_data=input_data, attempt=attempt))
    assert ran.types[0] == "task_artifact"
    assert ran.outcome.kind == kind


@virtual_time
async def test_it_asks_and_echoes_the_answer() -> None:
    log = LogBook().started()
    ran = await run(EchoExecutor(), log.todo(input_data={"ask": "what?"}))
    assert ran.outcome.kind == "input_required"
    assert ran.last.message == "what?"
    log.extend(ran.events).answered("this").started()
    ran = await run(EchoExecutor(), log.todo(input_data={"ask": "what?"}), load_events=log.load)
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "this"


@virtual_time
async def test_it_can_be_cancelled() -> None:
    todo = make_todo(prompt="a b c d", input_data={"delay": 10})
    ran = await run(EchoExecutor(), todo, act=after(15, lambda task_run: task_run.cancel()))
    assert ran.types == ["task_artifact", "task_cancelled"]


@pytest.mark.parametrize("text", ["", "a", "a b", "a  b\nc d e f g h i j", " leading", "trailing "])
def test_chunks_together_are_the_text(text: str) -> None:
    pieces = split(text)
    assert "".join(pieces) == text
    assert 1 <= len(pieces) <= 4
