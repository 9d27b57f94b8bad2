"""One client in several event loops: sync views and task queues call `asyncio.run` again and again."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from supabase import create_async_client, create_client

from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import ClientClosedError, EventLoopError
from reactive_worker.models import TodoStatus
from reactive_worker.testing.workers import running_worker
from tests.executors import Echo


async def submit_and_wait(client: TaskClient) -> TodoStatus:
    id = await client.submit_task("test", "hi")
    return (await client.wait_for_completion(id, 60)).agent_status


async def test_a_client_from_settings_works_in_one_loop_after_the_other(local_supabase: Any) -> None:
    client = TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key)

    def program() -> list[TodoStatus]:
        return [asyncio.run(submit_and_wait(client)) for _ in range(3)]

    async with running_worker(local_supabase, Echo()):
        assert await asyncio.to_thread(program) == [TodoStatus.COMPLETED] * 3
        assert await submit_and_wait(client) is TodoStatus.COMPLETED
        await client.aclose()


async def test_a_client_from_settings_works_in_two_loops_at_once(local_supabase: Any) -> None:
    async with (
        TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key) as client,
        running_worker(local_supabase, Echo()),
    ):
        threads = [asyncio.to_thread(lambda: asyncio.run(submit_and_wait(client))) for _ in range(3)]
        assert await asyncio.gather(submit_and_wait(client), *threads) == [TodoStatus.COMPLETED] * 4


async def test_the_synchronous_client_works_in_every_loop(local_supabase: Any) -> None:
    supabase = create_client(local_supabase.api_url, local_supabase.service_role_key)
    client = TaskClient(supabase)
    async with running_worker(local_supabase, Echo()):
        assert await submit_and_wait(client) is TodoStatus.COMPLETED
        again = await asyncio.to_thread(lambda: asyncio.run(submit_and_wait(client)))
        assert again is TodoStatus.COMPLETED
    await client.aclose()
    supabase.postgrest.session.close()


async def test_an_async_client_of_another_loop_is_refused_with_advice(local_supabase: Any) -> None:
    supabase = await create_async_client(local_supabase.api_url, local_supabase.service_role_key)
    client = TaskClient(supabase)
    await client.submit_task("test", "hi", delay=60)

    def elsewhere() -> None:
        asyncio.run(client.list_tasks())

    for _ in range(2):
        with pytest.raises(EventLoopError, match=r"make one in each loop.*TaskClient.from_settings"):
            await asyncio.to_thread(elsewhere)
    # In its own it goes on working.
    assert len(await client.list_tasks()) == 1
    await supabase.postgrest.session.aclose()


#: In a process of its own: the sockets of a loop that has ended belong to nobody.
USED_BEFORE = """
import asyncio, sys
from supabase import create_async_client
from reactive_worker import TaskClient

async def use():
    supabase = await create_async_client(*sys.argv[1:])
    await supabase.table("todolist").select("id").execute()
    return supabase

async def use_again(supabase):
    await TaskClient(supabase).list_tasks()

supabase = asyncio.run(use())
try:
    asyncio.run(use_again(supabase))
except Exception as error:
    print(type(error).__name__, error)
"""


async def test_an_async_client_that_was_used_elsewhere_before_is_refused_with_advice(
    local_supabase: Any,
) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", USED_BEFORE, local_supabase.api_url, local_supabase.service_role_key),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(program.communicate(), 90)
    assert said.decode().startswith(
        "EventLoopError this supabase client was used in another event loop before"
    )
    assert "from_settings" in said.decode()


async def test_a_wait_that_is_closed_says_so(local_supabase: Any) -> None:
    client = TaskClient.from_settings(url=local_supabase.api_url, key=local_supabase.service_role_key)
    id = await client.submit_task("test", "nobody runs it", delay=3600)
    waiting = asyncio.create_task(client.wait_for_completion(id))
    for _ in range(3):
        await client.get_task(id)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await asyncio.wait_for(waiting, 60)
