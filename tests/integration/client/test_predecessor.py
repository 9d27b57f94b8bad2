"""The programs of the predecessor's documentation, with new import lines and nothing else changed.

They are written down here as their users have them: untyped, with the synchronous supabase client, prints
included. Around them stand only the environment they read and what they should have printed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import eventually
from tests.integration.programs import Program
from tests.support import query

CLIENT = """
import asyncio
import os
from supabase import create_client
from reactive_worker.processgpt import ProcessGPTClient

async def main():
    supabase = create_client(os.getenv("SUPABASE_URL"), os.getenv("SUPABASE_ANON_KEY"))
    client = ProcessGPTClient(supabase)

    todolist_id = await client.submit_task(
        agent_type="my-custom-agent",
        prompt="Write a report",
        input_data={"topic": "AI", "depth": 2}
    )
    print(f"Task submitted: {todolist_id}")

    result = await client.wait_for_completion(todolist_id)
    print(f"Task completed: {result}")
    print("status", result["agent_status"], result.agent_status)
    print("output", result["agent_output"]["text"], result.agent_output["text"])

asyncio.run(main())
"""

SERVER = """
import asyncio
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.helpers import new_text_part, new_task_from_user_message
from reactive_worker.processgpt import ProcessGPTAgentServer

class MyCustomAgentExecutor(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue):
        user_input = context.get_user_input()
        task = context.current_task
        if not task:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work(updater.new_agent_message([new_text_part("thinking")]))
        await updater.add_artifact([new_text_part(f"Result for: {user_input}")], name="report")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue):
        pass

async def main():
    server = ProcessGPTAgentServer(
        agent_executor=MyCustomAgentExecutor(),
        agent_type="my-custom-agent"
    )
    await server.run()

asyncio.run(main())
"""

EXTENDED = """
import asyncio
from a2a.server.agent_execution import AgentExecutor
from a2a.helpers import new_text_message
from reactive_worker.processgpt import (
    ProcessGPTAgentServer, ProcessGPTRequestContext, TodoListItem
)

class CustomRequestContext(ProcessGPTRequestContext):
    def __init__(self, todolist_item: TodoListItem):
        super().__init__(todolist_item)
        self.extra = "extra"

    def get_topic(self):
        return self.todolist_item.input_data.get("topic")

    def get_agent_type(self):
        return self.todolist_item.agent_type

class Executor(AgentExecutor):
    async def execute(self, context, event_queue):
        custom = CustomRequestContext(context.todolist_item)
        text = f"{custom.get_topic()} {custom.get_agent_type()} {custom.extra} {context.get_user_input()}"
        await event_queue.enqueue_event(new_text_message(text))

    async def cancel(self, context, event_queue):
        pass

server = ProcessGPTAgentServer(agent_executor=Executor(), agent_type="my-custom-agent", polling_interval=5)
asyncio.run(server.run())
"""

MONITOR = """
import asyncio
import os
from supabase import create_client
from reactive_worker.processgpt import ProcessGPTMonitor

async def main():
    supabase = create_client(os.getenv("SUPABASE_URL"), os.getenv("SUPABASE_ANON_KEY"))
    monitor = ProcessGPTMonitor(supabase)

    stats = await monitor.get_system_stats()
    print(f"Total tasks: {stats['total_tasks']}")
    print(f"Pending tasks: {stats['pending_tasks']}")
    print(f"Completed tasks: {stats['completed_tasks']}")

    events = await monitor.get_recent_events(limit=10)
    for event in events:
        print(f"{event['event_type']} {event['created_at']} {event.get('message')}")

asyncio.run(main())
"""


@pytest.fixture
def program(local_supabase: Any, tmp_path: Path) -> Any:
    # Its documents submit with the anon key, which may do nothing here: the service key stands in its place.
    environment = {
        "SUPABASE_URL": local_supabase.api_url,
        "SUPABASE_ANON_KEY": local_supabase.service_role_key,
    }
    started: list[Program] = []

    def start(source: str) -> Program:
        file = tmp_path / f"program_{len(started)}.py"
        file.write_text(source)
        started.append(Program([str(file)], cwd=tmp_path, environment=environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


async def test_a_server_a_client_and_a_monitor(program: Any, local_supabase: Any) -> None:
    server = program(SERVER)
    client = program(CLIENT)
    assert await client.wait() == 0, client.stderr
    lines = client.stdout.splitlines()
    id = lines[0].removeprefix("Task submitted: ")
    assert lines[1].startswith("Task completed: ")
    assert lines[2:] == [
        "status completed completed",
        "output " + " ".join(["Result for: Write a report"] * 2),
    ]
    (row,) = await query(local_supabase.db_url, "select * from todolist where id = %s", id)
    assert row["agent_status"] == "completed"
    assert row["started_at"] <= row["completed_at"]
    kinds = await query(
        local_supabase.db_url,
        "select event_type from events where todolist_id = %s order by created_at, seq",
        id,
    )
    assert kinds[0]["event_type"] == "task_started"
    assert kinds[-1]["event_type"] == "task_completed"

    monitor = program(MONITOR)
    assert await monitor.wait() == 0, monitor.stderr
    assert monitor.stdout.splitlines()[:3] == ["Total tasks: 1", "Pending tasks: 0", "Completed tasks: 1"]
    assert monitor.stdout.splitlines()[3].startswith("task_completed ")

    server.terminate()
    assert await server.wait() == 0, server.stderr
    assert await query(local_supabase.db_url, "select * from workers") == []


async def test_an_extended_request_context(program: Any, local_supabase: Any) -> None:
    program(EXTENDED)
    client = program(CLIENT)
    assert await client.wait() == 0, client.stderr
    assert client.stdout.splitlines()[-1].startswith("output AI my-custom-agent extra Write a report ")


async def test_a_context_class_given_to_the_server(program: Any) -> None:
    source = EXTENDED.replace(
        "custom = CustomRequestContext(context.todolist_item)", "custom = context"
    ).replace(
        'agent_type="my-custom-agent",', 'agent_type="my-custom-agent", context_class=CustomRequestContext,'
    )
    program(source)
    client = program(CLIENT)
    assert await client.wait() == 0, client.stderr
    assert client.stdout.splitlines()[-1].startswith("output AI my-custom-agent extra Write a report ")


async def test_stop_ends_a_server(local_supabase: Any) -> None:
    from reactive_worker.processgpt import ProcessGPTAgentServer
    from reactive_worker.testing.workers import worker_settings
    from tests.executors import Echo

    server = ProcessGPTAgentServer(
        Echo(), "t", settings=worker_settings(local_supabase), handle_signals=False
    )
    running = asyncio.create_task(server.run())
    await eventually(lambda: _workers(local_supabase.db_url))
    server.stop()
    await asyncio.wait_for(running, 30)


async def _workers(db_url: str) -> list[dict[str, Any]]:
    return await query(db_url, "select id from workers")


async def test_the_anon_key_is_refused_with_the_way_out(local_supabase: Any) -> None:
    from supabase import create_client

    from reactive_worker.errors import PermissionDeniedError
    from reactive_worker.processgpt import ProcessGPTClient

    supabase = create_client(local_supabase.api_url, local_supabase.anon_key)
    client = ProcessGPTClient(supabase)
    with pytest.raises(PermissionDeniedError, match="service role key"):
        await client.submit_task(agent_type="t", prompt="p", input_data={})
    supabase.postgrest.session.close()
