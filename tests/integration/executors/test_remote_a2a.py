"""RemoteA2AExecutor against a real a2a-sdk server: without a database, with logs as a database keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.types import TaskState

from reactive_worker.errors import ConfigurationError
from reactive_worker.execution import TaskRun
from reactive_worker.executors.remote.known import KEY
from reactive_worker.executors.remote_a2a import RemoteA2AExecutor
from reactive_worker.testing.proxy import FaultyProxy
from reactive_worker.testing.workers import eventually
from tests.remote_agent import RemoteServer, serving
from tests.unit.execution.fakes import CONTEXT, ID, LogBook, Ran, make_runner, make_todo, run


@pytest.fixture
async def remote() -> AsyncIterator[RemoteServer]:
    async with serving() as server:
        yield server


def executor(remote: RemoteServer, **options: Any) -> RemoteA2AExecutor:
    return RemoteA2AExecutor(remote.url, **{"poll_interval": 0.05, "patience": 5.0, **options})


def kept(ran: Ran | LogBook) -> dict[str, Any]:
    """The remote ids the log holds last."""
    found = [
        update["metadata"][KEY]
        for event in ran.events
        if KEY in (update := event.event_data.get("statusUpdate", {})).get("metadata", {})
    ]
    return found[-1] if found else {}


async def cut_short(executor: RemoteA2AExecutor, log: LogBook, remote: RemoteServer, **columns: Any) -> None:
    """A run whose worker dies once the remote ids are in the log and the agent waits."""
    ran = Ran()
    task_run = make_runner(executor, load_events=log.load).start(log.todo(**columns), ran.events.append)
    await eventually(lambda: kept(ran) and remote.agent.waiting.is_set())
    task_run.lose()
    await task_run.wait()
    log.extend(ran.events)


@pytest.mark.parametrize("how", ["JSONRPC", "HTTP+JSON", "0.3", "polling"])
async def test_a_task_is_done_over_there(remote: RemoteServer, how: str) -> None:
    if how == "polling":
        remote.card.capabilities.streaming = False
    elif how == "0.3":
        remote.speak(remote.port, version="0.3")
    else:
        remote.speak(remote.port, binding=how)
    ran = await run(executor(remote), make_todo(prompt="echo one two three", input_data={"a": 1}))
    assert ran.outcome.kind == "completed"
    assert ran.outcome.output["text"] == "one two three "
    assert [each["artifactId"] for each in ran.outcome.output["artifacts"]] == ["answer", "data"]
    assert ran.outcome.output["message"]["parts"] == [{"text": "done"}]
    for event in ran.events:
        (update,) = event.event_data.values()
        assert (update["taskId"], update["contextId"]) == (ID, CONTEXT)
    (message,) = remote.agent.received
    assert message.context_id == CONTEXT
    assert message.parts[1].data.struct_value.fields["a"].number_value == 1
    ids = kept(ran)
    assert ids["taskId"] not in ("", ID)
    assert ids["over"] is True


async def test_it_streams(remote: RemoteServer) -> None:
    ran = Ran()
    task_run = make_runner(executor(remote)).start(make_todo(prompt="wait"), ran.events.append)
    await eventually(lambda: [e for e in ran.events if e.message == "first "])
    assert ran.types[0] == "task_progress", "the ids come first"
    assert kept(ran)["taskId"]
    remote.agent.go.set()
    await task_run.wait()
    assert ran.outcome.output["text"] == "first second"


async def test_a_message_is_a_reply(remote: RemoteServer) -> None:
    ran = await run(executor(remote), make_todo(prompt="reply hello"))
    assert ran.types == ["task_completed"]
    assert ran.outcome.output["text"] == "reply to hello"
    assert ran.last.event_data["message"]["taskId"] == ID


@pytest.mark.parametrize("how", ["streaming", "polling"])
async def test_a_question_and_its_answer(remote: RemoteServer, how: str) -> None:
    remote.card.capabilities.streaming = how == "streaming"
    agent = executor(remote)
    log = LogBook().started()
    asked = await run(agent, log.todo(prompt="ask one"))
    assert (asked.outcome.kind, asked.outcome.task_state) == ("input_required", "TASK_STATE_INPUT_REQUIRED")
    assert asked.last.message == "which one?"
    log.extend(asked.events).answered("left").started()
    answered = await run(agent, log.todo(prompt="ask one"), load_events=log.load)
    assert answered.outcome.kind == "completed"
    assert answered.outcome.output["text"] == "answered left"
    first, second = remote.agent.received
    assert (second.task_id, second.context_id) == (first.task_id, first.context_id)
    assert second.message_id != first.message_id


async def test_a_login_passes_through(remote: RemoteServer) -> None:
    ran = await run(executor(remote), make_todo(prompt="login"))
    assert (ran.outcome.kind, ran.outcome.task_state) == ("input_required", "TASK_STATE_AUTH_REQUIRED")
    assert ran.last.event_type == "task_auth_required"


async def test_a_cancel_is_passed_on(remote: RemoteServer) -> None:
    async def act(task_run: TaskRun) -> None:
        await remote.agent.waiting.wait()
        task_run.cancel("enough")

    ran = await run(executor(remote), make_todo(prompt="wait"), act=act)
    assert ran.outcome.kind == "cancelled"
    assert ran.last.message == "stopped over there"
    assert remote.agent.cancelled == [kept(ran)["taskId"]]
    assert kept(ran)["over"] is True


async def test_a_cancelled_task_tried_again_is_a_new_one_over_there(remote: RemoteServer) -> None:
    agent = executor(remote)
    log = LogBook().started()
    ran = Ran()
    task_run = make_runner(agent).start(log.todo(prompt="wait"), ran.events.append)
    await remote.agent.waiting.wait()
    task_run.cancel()
    await task_run.wait()
    log.extend(ran.events).add("task_retried", {"attempt": 1}).started()
    remote.agent.go.set()
    again = await run(agent, log.todo(prompt="wait"), load_events=log.load)
    assert again.outcome.output["text"] == "first second"
    first, second = remote.agent.received
    assert first.task_id != second.task_id
    assert first.message_id != second.message_id


@pytest.mark.parametrize("how", ["JSONRPC", "HTTP+JSON", "polling"])
async def test_a_lost_run_is_resumed_without_sending_twice(remote: RemoteServer, how: str) -> None:
    if how == "polling":
        remote.card.capabilities.streaming = False
    else:
        remote.speak(remote.port, binding=how)
    log = LogBook().started()
    await cut_short(executor(remote), log, remote, prompt="wait")
    # Another worker, in another process: nothing but the log tells it.
    log.started()
    ran = Ran()
    task_run = make_runner(executor(remote), load_events=log.load).start(
        log.todo(prompt="wait"), ran.events.append
    )
    await eventually(lambda: [e for e in ran.events if e.message == "first "])
    remote.agent.go.set()
    await task_run.wait()
    assert ran.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 1
    assert len([call for call in remote.calls if call.startswith(("Send", "/rest/message"))]) == 1


async def test_an_answer_is_not_given_twice(remote: RemoteServer) -> None:
    log = LogBook().started()
    log.extend((await run(executor(remote), log.todo(prompt="ask one"))).events).answered("wait").started()
    await cut_short(executor(remote), log, remote, prompt="ask one")
    log.started()
    remote.agent.go.set()
    ran = await run(executor(remote), log.todo(prompt="ask one"), load_events=log.load)
    assert ran.outcome.output["text"] == "answered wait"
    assert len(remote.agent.received) == 2


async def test_a_task_whose_id_was_never_kept_is_found(remote: RemoteServer) -> None:
    log = LogBook().started()
    ran = Ran()
    task_run = make_runner(executor(remote)).start(log.todo(prompt="wait"), ran.events.append)
    await remote.agent.waiting.wait()
    task_run.lose()
    await task_run.wait()
    log.started()  # The log holds nothing of what the first run heard.
    remote.agent.go.set()
    again = await run(executor(remote), log.todo(prompt="wait"), load_events=log.load)
    assert again.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 1


async def test_the_line_is_cut_and_picked_up_again(remote: RemoteServer) -> None:
    async with FaultyProxy("127.0.0.1", remote.port) as proxy:
        remote.speak(proxy.port)
        agent = executor(remote, allowed_hosts=[f"127.0.0.1:{proxy.port}"])
        ran = Ran()
        task_run = make_runner(agent).start(make_todo(prompt="wait"), ran.events.append)
        await eventually(lambda: [e for e in ran.events if e.message == "first "])
        proxy.mode = "cut"
        await eventually(lambda: remote.calls.count("SendStreamingMessage") == 1)
        proxy.mode = "pass"
        await eventually(lambda: "SubscribeToTask" in remote.calls)
        remote.agent.go.set()
        await task_run.wait()
    assert ran.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 1
    assert ran.types.count("task_artifact") == 2, "what was heard is not said again"


async def test_a_line_that_went_silent_is_taken_for_dead(remote: RemoteServer) -> None:
    async with FaultyProxy("127.0.0.1", remote.port) as proxy:
        remote.speak(proxy.port)
        agent = executor(remote, allowed_hosts=["127.0.0.1"], idle_timeout=0.5, timeout=0.5)
        ran = Ran()
        task_run = make_runner(agent).start(make_todo(prompt="wait"), ran.events.append)
        await eventually(lambda: [e for e in ran.events if e.message == "first "])
        proxy.mode = "swallow"
        remote.agent.go.set()
        # What the stream says is swallowed; half a second later it is given up, and the answer looked up.
        await eventually(lambda: proxy.connections > 1)
        proxy.mode = "pass"
        await task_run.wait()
    assert ran.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 1


async def test_a_task_out_of_time_is_cancelled_over_there(remote: RemoteServer) -> None:
    ran = await run(executor(remote), make_todo(prompt="wait"), default_timeout=0.5)
    assert (ran.outcome.kind, (ran.outcome.error or {})["type"]) == ("failed", "timeout")
    assert remote.agent.cancelled == [kept(ran)["taskId"]]


@pytest.mark.parametrize("meanwhile", ["works", "done", "gone"])
async def test_a_cancel_between_two_runs_reports_what_is_true(remote: RemoteServer, meanwhile: str) -> None:
    log = LogBook().started()
    await cut_short(executor(remote), log, remote, prompt="wait")
    if meanwhile == "done":
        remote.agent.go.set()
        await eventually(lambda: remote.store_has("TASK_STATE_COMPLETED"))
    elif meanwhile == "gone":
        await remote.forget()
    log.started()
    todo = log.todo(prompt="wait", cancel_requested_at="2026-01-01T00:00:00Z")
    ran = await run(executor(remote), todo, load_events=log.load)
    if meanwhile == "done":
        # It had ended before anybody asked: that is what counts, and nothing of it is lost.
        assert ran.outcome.kind == "completed"
        assert ran.outcome.output["text"] == "first second"
    else:
        assert ran.outcome.kind == "cancelled"
        assert len(remote.agent.cancelled) == (1 if meanwhile == "works" else 0)
    assert len(remote.agent.received) == 1


async def test_an_agent_out_of_reach_costs_one_failure_and_no_second_task(remote: RemoteServer) -> None:
    log = LogBook().started()
    async with FaultyProxy("127.0.0.1", remote.port) as proxy:
        remote.speak(proxy.port)
        agent = executor(remote, allowed_hosts=["127.0.0.1"], patience=0.2)
        ran = Ran()
        task_run = make_runner(agent).start(log.todo(prompt="wait"), ran.events.append)
        await eventually(lambda: [e for e in ran.events if e.message == "first "])
        proxy.mode = "cut"
        await task_run.wait()
        assert ran.outcome.kind == "retry"
        assert (ran.outcome.error or {})["type"] == "RemoteAgentError"
        proxy.mode = "pass"
        log.extend(ran.events).retrying().started()
        remote.agent.go.set()
        again = await run(agent, log.todo(prompt="wait"), load_events=log.load)
    assert again.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 1


async def test_an_agent_that_has_forgotten_is_asked_again(remote: RemoteServer) -> None:
    log = LogBook().started()
    await cut_short(executor(remote), log, remote, prompt="wait")
    await remote.forget()
    log.started()

    async def act(task_run: TaskRun) -> None:
        await eventually(lambda: len(remote.agent.received) == 2)
        remote.agent.go.set()

    ran = await run(executor(remote), log.todo(prompt="wait"), load_events=log.load, act=act)
    assert ran.outcome.output["text"] == "first second"
    assert len(remote.agent.received) == 2


async def test_failures_over_there(remote: RemoteServer) -> None:
    failed = await run(executor(remote), make_todo(prompt="fail no paper"))
    assert (failed.outcome.kind, (failed.outcome.error or {})["message"]) == ("failed", "no paper")
    raised = await run(executor(remote), make_todo(prompt="raise oops"))
    assert raised.outcome.kind == "failed"
    assert len(remote.agent.received) == 2
    large = await run(executor(remote), make_todo(prompt="big 1100000"))
    assert large.outcome.kind == "failed"
    assert "cannot be stored" in (large.outcome.error or {})["message"]


@pytest.mark.parametrize(
    ("refuse", "kind", "words"),
    [
        ((503, {}), "retry", "503"),
        ((401, {}), "failed", "401"),
        ((429, {"retry-after": "7"}), "retry", "busy"),
    ],
)
async def test_refusals(remote: RemoteServer, refuse: Any, kind: str, words: str) -> None:
    agent = executor(remote)
    ran = await run(agent, make_todo(prompt="echo hello"))
    assert ran.outcome.kind == "completed", "the card is known from here on"
    remote.refuse = refuse
    for each in (agent, executor(remote)):
        ran = await run(each, make_todo(prompt="echo hello"))
        assert ran.outcome.kind == kind
        assert words in (ran.outcome.error or {})["message"]
        if refuse[0] == 429:
            assert (ran.outcome.retry_after, ran.outcome.counts_as_failure) == (7.0, False)
    assert len(remote.agent.received) == 1


async def test_nothing_is_there() -> None:
    ran = await run(RemoteA2AExecutor("http://127.0.0.1:9"), make_todo())
    assert ran.outcome.kind == "retry"
    assert "agent card of http://127.0.0.1:9" in (ran.outcome.error or {})["message"]


async def test_a_card_that_leads_elsewhere_is_not_followed(remote: RemoteServer) -> None:
    async with FaultyProxy("127.0.0.1", remote.port) as proxy:
        remote.speak(proxy.port)
        ran = await run(executor(remote), make_todo(prompt="echo hello"))
        assert ran.outcome.kind == "failed"
        assert f"127.0.0.1:{proxy.port}, which is not allowed" in (ran.outcome.error or {})["message"]
        assert remote.agent.received == []
        ran = await run(executor(remote, allowed_hosts=["127.0.0.1"]), make_todo(prompt="echo hello"))
        assert ran.outcome.kind == "completed"


async def test_credentials_are_asked_for_each_turn(remote: RemoteServer) -> None:
    async def headers(context: Any) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"Authorization": f"Bearer of-{context.call_context.user.user_name}"}

    await run(executor(remote, headers=headers), make_todo(prompt="echo hi", owner_id="ada"))
    assert remote.agent.headers[0]["authorization"] == "Bearer of-ada"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("agent.example.com", {}),
        ("ftp://agent.example.com", {}),
        ("https://me:secret@agent.example.com", {}),
        ("https://agent.example.com", {"allowed_hosts": ["https://other.example.com/x"]}),
        ("https://agent.example.com", {"timeout": 0}),
        ("https://agent.example.com", {"patience": -1}),
    ],
)
def test_arguments_are_checked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RemoteA2AExecutor(url, **options)
    assert "secret" not in str(raised.value)


def test_states_are_all_known() -> None:
    """A new state of a later SDK must be thought about here."""
    assert len(TaskState.values()) == 9
