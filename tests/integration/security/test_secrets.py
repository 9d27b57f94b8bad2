"""Canary keys: while everything runs and fails, none is in what is printed, logged, raised or stored."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
from supabase import AsyncClient

from reactive_worker.access.tokens import mint_token
from reactive_worker.cli import main
from reactive_worker.client.monitor import Monitor
from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.local.gateway import Gateway
from reactive_worker.local.keys import Keys
from reactive_worker.local.project import find_project
from reactive_worker.settings import Settings
from reactive_worker.store.connection import Connection
from reactive_worker.store.push.changes import Binding, RealtimeLink
from reactive_worker.testing.database import Database
from reactive_worker.testing.workers import WorkerProcess, eventually, running_worker
from tests.executors import Echo
from tests.support import count

#: Neither a JWT nor an `sb_...` key: only its value tells that it is one. `+` and `/` change in URLs.
KEY = "canary/of+no+known+kind-0123456789"
SECRET = "canary-jwt-secret-with-at-least-thirty-two-bytes"

EXECUTOR = """
import os
from reactive_worker.executors.function import FunctionExecutor

def leak(prompt):
    raise RuntimeError(f"cannot use {os.environ['SUPABASE_SERVICE_ROLE_KEY']} or {os.environ['TOKEN']}")
"""


@pytest.fixture
def canary(database: Database) -> Generator[Gateway]:
    """An embedded Supabase whose keys are canaries."""
    gateway = Gateway(project=find_project(), keys=Keys(jwt_secret=SECRET, secret_key=KEY))
    try:
        gateway.start(
            db_url=database.dsn,
            authenticator_dsn=database.authenticator_dsn,
            admin_dsn=database.admin_dsn,
        )
        yield gateway
    finally:
        gateway.stop()


def canaries(supabase: Gateway) -> list[str]:
    """Every secret of this Supabase, also as URLs write it; of a token its signature, too."""
    from urllib.parse import quote

    token = mint_token(SECRET, expires_in=3600)
    whole = [KEY, quote(KEY, safe=""), SECRET, supabase.service_role_key, token, "newline-inside"]
    return whole + [text.rpartition(".")[2] for text in whole if text.startswith("eyJ")]


def stored(supabase: Gateway) -> str:
    """Everything in the tables, and in Realtime's."""
    found: list[str] = []
    with psycopg.connect(supabase.db_url) as connection:
        for table in ("todolist", "events", "workers", "worker_mailbox"):
            rows = connection.execute(f"select to_jsonb(t)::text from {table} t").fetchall()  # type: ignore[arg-type]
            found += [text for (text,) in rows]
    return "\n".join(found)


def assert_clean(text: str, secrets: list[str], what: str) -> None:
    for secret in secrets:
        at = text.find(secret)
        assert at < 0, f"{what} holds a secret: ...{text[max(0, at - 200) : at + 20]}..."


COMMANDS = [
    ("tasks",),
    ("stats",),
    ("workers", "list"),
    ("submit", "leak", "hello"),
    ("events", "00000000-0000-4000-8000-000000000000"),
    ("cancel", "00000000-0000-4000-8000-000000000000"),
    ("workers", "pause", "nobody"),
]


def test_no_command_prints_or_stores_a_key(
    canary: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each at DEBUG, with the right key, a wrong one, and no server: plain and with --json."""
    secrets = canaries(canary)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", KEY)
    monkeypatch.setenv("SUPABASE_JWT_SECRET", SECRET)
    for name in ("httpx", "httpcore", "hpack", "websockets", "realtime"):
        # A command that ran in this process before may have made them quiet.
        logging.getLogger(name).setLevel(logging.NOTSET)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    codes: list[int] = []
    try:
        for url, key in (
            (canary.api_url, KEY),
            (canary.api_url, f"{KEY}-wrong"),
            ("http://127.0.0.1:1", KEY),
        ):
            monkeypatch.setenv("SUPABASE_URL", url)
            monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", key)
            for command in COMMANDS:
                loud = ("--log-level", "DEBUG", *command)
                codes += [main([*loud, "--json"]), main(loud)]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert 0 in codes
    assert 3 in codes
    said = "".join(capfd.readouterr())
    # It did talk: requests were logged and errors explained.
    assert "HTTP Request: POST" in said
    assert "cannot reach" in said
    assert_clean(said, secrets, "the output")
    assert_clean(stored(canary), secrets, "a table")


async def test_no_worker_logs_stores_or_shows_a_key(
    canary: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process at DEBUG, with the service key and then with a token; its executor leaks on purpose."""
    secrets = canaries(canary)
    (tmp_path / "leaky.py").write_text(EXECUTOR)
    token = mint_token(SECRET, expires_in=3600)
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("TOKEN", token)
    for number, extra in enumerate(({}, {"SUPABASE_WORKER_TOKEN": token})):
        for name, value in extra.items():
            monkeypatch.setenv(name, value)
        log = tmp_path / f"worker-{number}.log"
        process = WorkerProcess(
            canary, "leaky:leak", agent_type="leak", cwd=tmp_path, log=log, log_format="json"
        )
        process._environment["SUPABASE_SERVICE_ROLE_KEY"] = KEY
        process.start()
        try:
            await eventually(lambda log=log: log.exists() and "realtime" in log.read_text())
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
            assert "leaky:leak" in line
            assert_clean(line, secrets, "the process title")
            async with TaskClient.from_settings(url=canary.api_url, key=KEY) as client:
                id = await client.submit_task("leak", "hello", max_failures=1)
                todo = await client.wait_for_completion(id, timeout=30)
            assert todo.agent_status == "failed"
            assert "cannot use [redacted] or [redacted]" in todo.error["message"]
            # Push works, so the URL with the key in it was connected to, and DEBUG logged that.
            await eventually(lambda log=log: "websocket?apikey=" in log.read_text())
            canary.faults.drop_sockets()
            await eventually(lambda log=log: log.read_text().count("websocket?apikey=") >= 2)
        finally:
            process.terminate()
        assert await process.wait() == 0
        assert_clean(log.read_text(), secrets, "the log")
        assert "[redacted]" in log.read_text()
    assert_clean(stored(canary), secrets, "a table")


async def test_no_exception_and_no_librarys_log_holds_a_key(
    canary: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """For programs with their own logging: everything at DEBUG, every error with its whole chain."""
    secrets = canaries(canary)
    # By name as well: a command run before in this process may have made them quiet.
    for name in (
        None,
        "httpx",
        "httpcore",
        "hpack",
        "realtime",
        "uvicorn",
        "websockets",
        "websockets.client",
    ):
        caplog.set_level(logging.DEBUG, logger=name)
    caught: list[BaseException] = []

    async def try_all(url: str, key: str) -> None:
        async with (
            TaskClient.from_settings(url=url, key=key) as client,
            Monitor.from_settings(url=url, key=key) as monitor,
        ):
            for call in (
                client.submit_task("test", "x"),
                client.get_task("00000000-0000-4000-8000-000000000000"),
                client.cancel_task("00000000-0000-4000-8000-000000000000"),
                client.list_tasks(),
                monitor.get_workers(),
            ):
                try:
                    await call
                except ReactiveWorkerError as error:
                    caught.append(error)
        link = RealtimeLink(
            url, key, "canary", [Binding("todolist", "INSERT")], on_change=lambda change: None
        )
        await link.start()
        await eventually(lambda: link.is_live or link._reason)
        await link.stop()

    await try_all(canary.api_url, KEY)
    await try_all(canary.api_url, f"{KEY}-wrong")
    await try_all("http://127.0.0.1:1", KEY)
    # A key that no header can hold, past the check of settings.
    broken = AsyncClient(canary.api_url, "canary-key-with\nnewline-inside")
    with pytest.raises(ReactiveWorkerError) as refused:
        await Connection(broken).rpc("todo_stats", {})
    caught.append(refused.value)
    async with (
        running_worker(canary, Echo(), settings={"key": KEY}),
        TaskClient.from_settings(url=canary.api_url, key=KEY) as client,
    ):
        await client.wait_for_completion(await client.submit_task("test", "x"), timeout=20)
    assert await count(canary.db_url, "completed") >= 1
    assert len(caught) >= 10
    for error in caught:
        assert_clean("".join(traceback.format_exception(error)), secrets, "an exception")
    for record in caplog.records:
        assert_clean(logging.Formatter().format(record), secrets, f"a record of {record.name}")
    assert any("websocket?apikey=[redacted]" in record.getMessage() for record in caplog.records)
    for what in (Settings(url="http://x", key=KEY, worker_token=KEY), Connection(broken).credentials):
        assert_clean(repr(what), secrets, "a repr")
    assert json.dumps(KEY)[1:-1] not in caplog.text
    assert sys.exc_info() == (None, None, None)
