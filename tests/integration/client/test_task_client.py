"""TaskClient and Monitor on a real PostgreSQL, with a real worker, over every kind of supabase client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from supabase import Client, create_async_client, create_client

from reactive_worker.client.completion import CompletionWatch
from reactive_worker.client.monitor import Monitor
from reactive_worker.client.new_task import NewTask
from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import (
    InvalidKeyError,
    PermissionDeniedError,
    TaskConflictError,
    TaskNotFoundError,
    UnreachableError,
)
from reactive_worker.models import TodoEvent, TodoStatus
from reactive_worker.store.push.changes import RealtimeLink
from reactive_worker.testing.workers import eventually, running_worker
from tests.executors import Echo
from tests.support import query


@pytest.fixture
async def client(local_supabase: Any) -> AsyncIterator[TaskClient]:
    async with TaskClient.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as client:
        yield client


@pytest.fixture
def sync_supabase(local_supabase: Any) -> Iterator[Client]:
    supabase = create_client(local_supabase.api_url, local_supabase.service_role_key)
    yield supabase
    supabase.postgrest.session.close()


async def test_a_submitted_task_is_stored_as_given(client: TaskClient, local_supabase: Any) -> None:
    id = await client.submit_task(
        "test",
        "ask",
        {"list": [1, "zwei", None]},
        priority=7,
        delay=3600,
        context_id="talk",
        max_failures=5,
        timeout=60,
    )
    todo = await client.get_task(id)
    assert (todo.agent_type, todo.prompt, todo.input_data) == ("test", "ask", {"list": [1, "zwei", None]})
    assert (todo.priority, todo.context_id, todo.max_failures, todo.timeout_seconds) == (7, "talk", 5, 60)
    assert todo.agent_status is TodoStatus.PENDING
    assert 3590 < (todo.available_at - todo.created_at).total_seconds() < 3610


async def test_equal_keys_are_one_task(client: TaskClient) -> None:
    ids = await asyncio.gather(
        *(client.submit_task("test", f"p{n}", idempotency_key="once") for n in range(20))
    )
    assert len(set(ids)) == 1
    assert await client.submit_many([NewTask("test", "p", idempotency_key="once")] * 3) == [ids[0]] * 3


async def test_many_are_submitted_in_order(client: TaskClient, local_supabase: Any) -> None:
    ids = await client.submit_many(NewTask("test", f"task {n}") for n in range(1201))
    rows = await query(local_supabase.db_url, "select id::text, prompt from todolist")
    assert {row["id"]: row["prompt"] for row in rows} == {id: f"task {n}" for n, id in enumerate(ids)}


async def test_waiting_ends_with_the_result(client: TaskClient, local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo()):
        id = await client.submit_task("test", "hello world")
        todo = await client.wait_for_completion(id, timeout=30)
    assert todo.agent_status is TodoStatus.COMPLETED
    assert todo.agent_output["text"] == "hello world"


async def test_a_failed_task_is_returned_with_its_error(client: TaskClient, local_supabase: Any) -> None:
    async with running_worker(local_supabase, Echo()):
        id = await client.submit_task("test", "x", {"fail": "no luck"}, max_failures=1)
        todo = await client.wait_for_completion(id, timeout=30)
    assert todo.agent_status is TodoStatus.FAILED
    assert todo.error["message"] == "no luck"


async def test_a_wait_that_takes_too_long_says_so(client: TaskClient) -> None:
    id = await client.submit_task("nobody", "x")
    with pytest.raises(TimeoutError, match=f"task {id} has not ended within 0.2 s; it goes on"):
        await client.wait_for_completion(id, timeout=0.2)


async def test_many_waiters_share_one_poll(client: TaskClient, local_supabase: Any) -> None:
    ids = await client.submit_many([NewTask("test", f"n{n}") for n in range(200)])
    waiting = asyncio.gather(*(client.wait_for_completion(id, timeout=60) for id in ids))
    async with running_worker(local_supabase, Echo(), settings={"concurrency": 50}):
        todos = await waiting
    assert [todo.agent_output["text"] for todo in todos] == [f"n{n}" for n in range(200)]


async def test_events_are_streamed_from_the_first_to_the_last(
    client: TaskClient, local_supabase: Any
) -> None:
    id = await client.submit_task("test", "abcdef", {"sleep": 0.2})
    async with running_worker(local_supabase, Echo()):
        live = [event async for event in client.stream_events(id)]
    assert [event.seq for event in live] == list(range(1, len(live) + 1))
    assert live[0].event_type == "task_started"
    assert live[-1].event_type == "task_completed"
    # History afterwards is the same, from any number on.
    assert await ids_of(client, id) == [event.id for event in live]
    assert await ids_of(client, id, after=2) == [event.id for event in live[2:]]


async def ids_of(client: TaskClient, id: str, after: int = 0) -> list[str]:
    return [event.id async for event in client.stream_events(id, after)]


@pytest.mark.parametrize("fault", ["none", "deaf", "drop"])
async def test_no_event_is_lost_or_doubled_whatever_realtime_does(
    client: TaskClient, local_supabase: Any, fault: str
) -> None:
    local_supabase.faults.deaf = fault == "deaf"
    data = {"sleep": 0.05}
    id = await client.submit_task("test", "a" * 20, data, max_failures=3)
    seen: list[TodoEvent] = []
    async with running_worker(local_supabase, Echo()), aclosing(client.stream_events(id)) as stream:
        async for event in stream:  # type: ignore[attr-defined]
            seen.append(event)
            if fault == "drop":
                local_supabase.faults.drop_sockets(1006)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].event_type == "task_completed"


async def test_the_synchronous_client_serves_too(local_supabase: Any, sync_supabase: Client) -> None:
    client = TaskClient(sync_supabase)
    async with running_worker(local_supabase, Echo()):
        id = await client.submit_task(agent_type="test", prompt="sync", input_data={"n": 1})
        result = await client.wait_for_completion(id, timeout=30)
        events = [event async for event in client.stream_events(id)]
    assert result.agent_output["text"] == "sync"
    assert events[-1].event_type == "task_completed"


async def test_the_users_async_client_stays_open(local_supabase: Any) -> None:
    supabase = await create_async_client(local_supabase.api_url, local_supabase.service_role_key)
    async with TaskClient(supabase) as client:
        id = await client.submit_task("test", "p")
    rows = await supabase.table("todolist").select("id").execute()
    assert [row["id"] for row in rows.data] == [id]  # type: ignore[index,call-overload]
    await supabase.postgrest.session.aclose()


async def test_cancel_retry_and_their_refusals(client: TaskClient) -> None:
    id = await client.submit_task("test", "p")
    with pytest.raises(TaskConflictError, match="pending"):
        await client.retry_task(id)
    assert (await client.cancel_task(id, "not needed")).agent_status is TodoStatus.CANCELLED
    assert (await client.cancel_task(id)).agent_status is TodoStatus.CANCELLED
    assert (await client.retry_task(id)).agent_status is TodoStatus.PENDING
    with pytest.raises(TaskConflictError):
        await client.answer_task(id, "nobody asked")
    kinds = [event.event_type for event in await client.get_events(id)]
    assert kinds == ["task_cancelled", "task_retried"]


async def test_a_retry_reopens_a_followed_stream(client: TaskClient) -> None:
    id = await client.submit_task("test", "p")
    await client.cancel_task(id)
    assert [event.event_type async for event in client.stream_events(id)] == ["task_cancelled"]
    followed: list[str] = []
    async with aclosing(client.stream_events(id, follow=True)) as stream:
        async for event in stream:  # type: ignore[attr-defined]
            followed.append(event.event_type)
            if len(followed) == 1:
                await client.retry_task(id)
            else:
                break
    assert followed == ["task_cancelled", "task_retried"]


async def test_unknown_tasks(client: TaskClient) -> None:
    nobody = str(uuid.uuid4())
    for call in (client.get_task, client.wait_for_completion, client.cancel_task, client.retry_task):
        with pytest.raises(TaskNotFoundError):
            await call(nobody)
    with pytest.raises(TaskNotFoundError):
        await client.get_events(nobody)
    with pytest.raises(TaskNotFoundError):
        await ids_of(client, nobody)


async def test_lists_are_newest_first_and_filtered(client: TaskClient) -> None:
    ids = [await client.submit_task("a", "1"), await client.submit_task("b", "2")]
    ids.append(await client.submit_task("a", "3"))
    await client.cancel_task(ids[0])
    assert [todo.id for todo in await client.list_tasks()] == ids[::-1]
    assert [todo.id for todo in await client.list_tasks("cancelled")] == [ids[0]]
    assert [todo.id for todo in await client.list_tasks(agent_type="a", limit=1)] == [ids[2]]


async def test_wrong_keys_are_told_apart(local_supabase: Any) -> None:
    url = local_supabase.api_url
    async with TaskClient.from_settings(url=url, key="sb_secret_wrong") as client:
        with pytest.raises(InvalidKeyError):
            await client.submit_task("test", "p")
    async with TaskClient.from_settings(url=url, key=local_supabase.anon_key) as client:
        with pytest.raises(PermissionDeniedError, match="service role key"):
            await client.submit_task("test", "p")


async def test_an_api_that_is_away_is_waited_out(client: TaskClient, local_supabase: Any) -> None:
    id = await client.submit_task("test", "p")
    waiting = asyncio.create_task(client.wait_for_completion(id, timeout=60))
    await eventually(lambda: client._completion.seen)
    local_supabase.faults.rest_status = 503
    with pytest.raises(UnreachableError):
        await client.get_task(id)
    with pytest.raises(UnreachableError):
        await client.wait_for_completion(id)
    assert not waiting.done()
    local_supabase.faults.rest_status = None
    async with running_worker(local_supabase, Echo()):
        assert (await waiting).agent_status is TodoStatus.COMPLETED


async def test_the_monitor_counts_and_shows_the_newest(
    client: TaskClient, local_supabase: Any, sync_supabase: Client
) -> None:
    done, waiting = await client.submit_many([NewTask("test", "p"), NewTask("other", "p")])
    monitor = Monitor(sync_supabase)
    async with running_worker(local_supabase, Echo()) as worker:
        await client.wait_for_completion(done, timeout=30)
        stats = await monitor.get_system_stats()
        (known,) = await monitor.get_workers()
    assert (stats["total_tasks"], stats["completed_tasks"], stats["pending_tasks"]) == (2, 1, 1)
    assert stats["workers_alive"] == 1
    assert stats["by_agent_type"]["other"]["pending_tasks"] == 1
    assert stats["oldest_pending_seconds"] > 0
    assert (await monitor.get_system_stats("test"))["total_tasks"] == 1
    assert known["id"] == worker.id
    events = await monitor.get_recent_events(limit=3)
    assert len(events) == 3
    assert events[0].event_type == "task_completed"
    assert await client.get_events(waiting) == []


async def test_the_tail_shows_new_events_of_all_tasks(client: TaskClient, local_supabase: Any) -> None:
    async with Monitor.from_settings(
        url=local_supabase.api_url, key=local_supabase.service_role_key
    ) as monitor:
        old = await client.submit_task("test", "old")
        await client.cancel_task(old)
        seen: list[tuple[str, str]] = []

        async def watch() -> None:
            async with aclosing(monitor.tail_events()) as stream:
                async for event in stream:  # type: ignore[attr-defined]
                    seen.append((event.todolist_id, event.event_type))
                    if len(seen) == 3:
                        return

        watching = asyncio.create_task(watch())
        await eventually(lambda: seen)
        new = await client.submit_task("test", "new")
        await client.cancel_task(new)
        await client.retry_task(new)
        await asyncio.wait_for(watching, 30)
    assert seen == [(old, "task_cancelled"), (new, "task_cancelled"), (new, "task_retried")]


async def test_realtime_alone_ends_a_wait(
    client: TaskClient, local_supabase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One look at the start, then never again by itself.
    monkeypatch.setattr("reactive_worker.client.completion.PUSH_AFTER", 0.0)
    monkeypatch.setattr("reactive_worker.client.completion.POLL_FIRST", 3600.0)
    monkeypatch.setattr("reactive_worker.client.completion.POLL_MOST", 3600.0)
    links: list[RealtimeLink] = []

    class Noted(RealtimeLink):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            links.append(self)

    monkeypatch.setattr(client, "_completion", CompletionWatch(Noted))
    id = await client.submit_task("test", "p")
    waiting = asyncio.create_task(client.wait_for_completion(id, timeout=60))
    await eventually(lambda: links and links[0].subscriptions)
    await client.cancel_task(id)
    assert (await waiting).agent_status is TodoStatus.CANCELLED


async def test_realtime_alone_feeds_a_stream(
    client: TaskClient, local_supabase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_worker.client.follow.POLL_FIRST", 3600.0)
    monkeypatch.setattr("reactive_worker.client.follow.POLL_MOST", 3600.0)
    id = await client.submit_task("test", "abc", {"sleep": 0.2})
    reading = asyncio.create_task(ids_of(client, id))
    async with running_worker(local_supabase, Echo()):
        assert len(await asyncio.wait_for(reading, 60)) == len(await client.get_events(id))
