"""The embedded Supabase as a whole, in this process and as `run_dev` in another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from reactive_worker.errors import ConfigurationError
from reactive_worker.local import LocalSupabase, run_dev
from reactive_worker.local.launch import HOST
from tests.integration.local.test_cluster import gone, wait_for

_FIELDS = [
    "api_url",
    "db_url",
    "anon_key",
    "service_role_key",
    "publishable_key",
    "secret_key",
    "jwt_secret",
]

_DEV = """
import asyncio, json, sys
from reactive_worker.local import run_dev
sys.exit(asyncio.run(run_dev(json_output=True, **json.loads(sys.argv[1]))))
"""


class Dev:
    """`run_dev` in a process of its own."""

    def __init__(self, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DEV, json.dumps({"port": 0, "db_port": 0, "data_dir": None, **options})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.status: dict[str, str] = json.loads(line)
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Signal it; returns its exit code and what it wrote to standard error."""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def stats(status: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{status['api_url']}/rest/v1/rpc/todo_stats", json={}, headers={"apikey": status["secret_key"]}
    )


async def test_it_serves_rest_and_tells_its_keys() -> None:
    async with LocalSupabase(port=0, db_port=0) as supabase:
        status = supabase.status()
        assert list(status) == _FIELDS
        assert status == {name: getattr(supabase, name) for name in _FIELDS}
        assert supabase.running
        answer = stats(status)
        assert answer.status_code == 200
        assert answer.json()["total_tasks"] == 0
        assert supabase.applied[-1] == "seed.sql"
        async with await psycopg.AsyncConnection.connect(supabase.db_url) as connection:
            await connection.execute("select count(*) from todolist")
        assert httpx.get(f"{supabase.api_url}/_local/health").json() == {"status": "ok"}
    assert not supabase.running
    with pytest.raises(httpx.ConnectError):
        stats(status)


def test_it_serves_while_the_caller_blocks() -> None:
    with LocalSupabase(port=0, db_port=0, seed=False) as supabase:
        assert stats(supabase.status()).json()["total_tasks"] == 0
        with pytest.raises(RuntimeError, match="started already"):
            supabase.start()
    with pytest.raises(RuntimeError, match="not started"):
        supabase.status()


async def test_the_schema_can_be_left_to_somebody_else() -> None:
    async with LocalSupabase(port=0, db_port=0, migrate=False) as supabase:
        assert supabase.applied == []
        assert stats(supabase.status()).json()["code"] == "PGRST202"


def test_the_second_start_keeps_data_and_applies_nothing(tmp_path: Path) -> None:
    with LocalSupabase(port=0, db_port=0, data_dir=tmp_path) as supabase:
        first = stats(supabase.status()).json()["total_tasks"]
        assert supabase.applied
    with LocalSupabase(port=0, db_port=0, data_dir=str(tmp_path)) as supabase:
        assert supabase.applied == []
        assert stats(supabase.status()).json()["total_tasks"] == first


def test_a_project_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    (tmp_path / "supabase" / "migrations" / "1_a.sql").write_text("create table a (x int);")
    with LocalSupabase(port=0, db_port=0, project_dir=tmp_path) as supabase:
        assert supabase.applied == ["1_a.sql"]


def test_a_taken_port_is_found_out_before_anything_is_started() -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        supabase = LocalSupabase(port=port, db_port=0)
        with pytest.raises(ConfigurationError, match=f"port {port} for the API is taken.*--port"):
            supabase.start()
        assert supabase.cluster.pid is None
    with pytest.raises(ConfigurationError, match="70000 is no port"):
        LocalSupabase(port=70_000, db_port=0).start()


def test_a_refused_migration_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    (tmp_path / "supabase" / "migrations" / "1_a.sql").write_text("nonsense")
    supabase = LocalSupabase(port=0, db_port=0, project_dir=tmp_path)
    with pytest.raises(ConfigurationError, match=r"1_a\.sql:1: syntax error"):
        supabase.start()
    assert not supabase.cluster.running


async def test_a_cancelled_start_leaves_nothing_running() -> None:
    supabase = LocalSupabase(port=0, db_port=0)
    starting = asyncio.create_task(supabase.__aenter__())
    while supabase.cluster.pid is None:
        await asyncio.sleep(0.005)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not supabase.cluster.running
    assert not supabase.running


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_dev_ends_in_order(how: signal.Signals) -> None:
    dev = Dev()
    assert list(dev.status) == _FIELDS
    assert stats(dev.status).status_code == 200
    assert dev.end(how) == (0, "")
    assert all(gone(child) for child in dev.children)


def test_dev_is_killed_and_started_again(tmp_path: Path) -> None:
    first = Dev(data_dir=str(tmp_path))
    port, db_port = (int(first.status[name].split(":")[-1].split("/")[0]) for name in ("api_url", "db_url"))
    headers = {"apikey": first.status["secret_key"]}
    rows = [{"agent_type": "kept", "prompt": "p"}]
    answer = httpx.post(
        f"{first.status['api_url']}/rest/v1/rpc/submit_todos", json={"p_rows": rows}, headers=headers
    )
    assert answer.status_code == 200
    first.end(signal.SIGKILL)
    # At once, on the same ports, while the old server is still being stopped.
    second = Dev(data_dir=str(tmp_path), port=port, db_port=db_port)
    assert second.status == first.status
    kept = httpx.get(f"{second.status['api_url']}/rest/v1/todolist?agent_type=eq.kept", headers=headers)
    assert len(kept.json()) == 1
    assert all(gone(child) for child in first.children)
    assert second.end(signal.SIGTERM)[0] == 0
    assert all(gone(child) for child in second.children)


def test_an_ephemeral_dev_that_is_killed_leaves_nothing() -> None:
    dev = Dev()
    roots = [Path(child.cmdline()[2]).parent for child in dev.children if "-D" in child.cmdline()]
    assert roots
    dev.end(signal.SIGKILL)
    wait_for(lambda: all(gone(child) for child in dev.children), "a process stayed behind")
    wait_for(lambda: not any(root.exists() for root in roots), "a folder stayed behind")


def test_dev_says_when_the_database_ends() -> None:
    dev = Dev()
    server = next(child for child in dev.children if "-D" in child.cmdline())
    os.kill(server.pid, signal.SIGQUIT)
    _, errors = dev.process.communicate(timeout=60)
    assert dev.process.returncode != 0
    assert "ended by itself" in errors


async def test_dev_prints_for_people(tmp_path: Path) -> None:
    lines: list[str] = []
    dev = asyncio.create_task(run_dev(port=0, db_port=0, data_dir=tmp_path, emit=lines.append))
    deadline = monotonic() + 60
    while not any("Ctrl-C" in line for line in lines):
        assert monotonic() < deadline
        assert not dev.done(), dev.exception()
        await asyncio.sleep(0.02)
    text = "\n".join(lines)
    assert "API URL: http://127.0.0.1:" in text
    assert "service role key: ey" in text
    assert "Applied seed.sql" in text
    assert "development only" in text
    assert str(tmp_path) in text
    dev.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dev


def test_without_the_extra_the_message_says_what_to_install() -> None:
    script = """
import sys
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("psycopg", "uvicorn") else real(name, *rest)
try:
    import reactive_worker.local
except ImportError as error:
    from reactive_worker.errors import ConfigurationError
    assert isinstance(error, ConfigurationError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "missing: psycopg, uvicorn" in done.stdout
    assert "pip install 'reactive-worker[local]'" in done.stdout


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    script = (
        "import sys, reactive_worker.testing.plugin; "
        "heavy = ('psycopg', 'uvicorn', 'starlette', 'supabase', 'a2a', 'reactivex'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gateway_thread_does_not_keep_the_process(tmp_path: Path) -> None:
    script = (
        "from reactive_worker.local import LocalSupabase\n"
        "supabase = LocalSupabase(port=0, db_port=0, migrate=False)\n"
        "supabase.start()\n"
        "print(supabase.cluster.pid)\n"
    )
    # No stop at all: the end of the process is enough.
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    pid = int(done.stdout)
    deadline = monotonic() + 30
    while psutil.pid_exists(pid):
        assert monotonic() < deadline
        sleep(0.02)
