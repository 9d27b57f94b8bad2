"""The programs of `examples/`, as their README says to run them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import eventually
from tests.integration.programs import ROOT, Program
from tests.support import count, insert, query

EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(local_supabase: Any, tmp_path: Path) -> Iterator[Any]:
    environment = {
        "SUPABASE_URL": local_supabase.api_url,
        "SUPABASE_SERVICE_ROLE_KEY": local_supabase.service_role_key,
    }
    started: list[Program] = []

    def start(name: str, *arguments: str) -> Program:
        started.append(Program([str(EXAMPLES / name), *arguments], cwd=tmp_path, environment=environment))
        return started[-1]

    yield start
    for program in started:
        program.kill()


async def until_a_worker_is_there(db_url: str) -> None:
    await eventually(lambda: query(db_url, "select 1 from workers"), timeout=60)


async def test_a_worker_of_ones_own_a_client_and_a_monitor(run: Any, local_supabase: Any) -> None:
    worker = run("own_worker.py")
    client = run("client.py", "hello", "world")
    assert await client.wait() == 0, client.stderr
    *events, result, cancelled = client.stdout.splitlines()
    assert events[0].split() == ["1", "task_started"]
    assert events[-1].split()[1] == "task_completed"
    assert result == "completed: HELLO WORLD!"
    assert cancelled == "the one due in an hour is cancelled"

    monitor = run("monitor.py")
    assert await monitor.wait() == 0, monitor.stderr
    assert monitor.stdout.startswith("3 tasks: 0 wait, 0 run\n2 completed, 0 failed\nworker ")
    worker.terminate()
    assert await worker.wait() == 0, worker.stderr


async def test_operators_of_ones_own(run: Any, local_supabase: Any) -> None:
    worker = run("custom_operator.py")
    await until_a_worker_is_there(local_supabase.db_url)
    await insert(local_supabase.db_url, ["a", "b"], agent_type="shout")
    await insert(local_supabase.db_url, ["c"], agent_type="shout", priority=9)
    await eventually(lambda: _all(local_supabase.db_url, 3))
    await eventually(lambda: worker.stdout.count("task_completed   said so far") == 3)
    worker.terminate()
    assert await worker.wait() == 0, worker.stderr
    # Its life is logged as the command line logs it; nothing of it is worth a warning.
    assert not re.search("WARNING|ERROR|Traceback", worker.stderr), worker.stderr


async def _all(db_url: str, number: int) -> bool:
    return await count(db_url, "completed") == number


async def test_the_predecessors_server_and_client(run: Any) -> None:
    run("processgpt_server.py", "--agent-type", "mine", "--polling-interval", "1")
    client = run("processgpt_server.py", "--agent-type", "mine", "--submit", "hello")
    assert await client.wait() == 0, client.stderr
    assert client.stdout.startswith("completed ")
    assert "'text': 'HELLO?!'" in client.stdout


async def test_a_task_is_done_by_an_agent_somewhere_else(local_supabase: Any, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    agent = Program([str(EXAMPLES / "a2a_agent.py"), str(port)], cwd=tmp_path)
    environment = {
        "SUPABASE_URL": local_supabase.api_url,
        "SUPABASE_SERVICE_ROLE_KEY": local_supabase.service_role_key,
        "REMOTE_AGENT_URL": f"http://127.0.0.1:{port}",
    }
    worker = Program(
        [str(EXAMPLES / "remote_agent.py"), "--agent-type", "remote", "--polling-interval", "1"],
        cwd=tmp_path,
        environment=environment,
    )
    try:
        (id,) = await insert(local_supabase.db_url, ["hello far world"], agent_type="remote")
        await eventually(lambda: _all(local_supabase.db_url, 1), timeout=60)
        (row,) = await query(local_supabase.db_url, "select agent_output from todolist where id = %s", id)
        assert row["agent_output"]["text"] == "1 hello\n2 far\n3 world\n"
    finally:
        worker.kill()
        agent.kill()
