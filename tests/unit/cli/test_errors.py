"""Everything that can be wrong before a server is asked: one clear line, a documented code, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reactive_worker.errors import WorkerStoppedError
from tests.unit.cli.conftest import Command

URL = {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "k"}

EXECUTORS = """
from a2a.server.agent_execution import AgentExecutor

class Good(AgentExecutor):
    async def execute(self, context, event_queue): ...
    async def cancel(self, context, event_queue): ...

class NeedsArgument(Good):
    def __init__(self, model): ...

class Abstract(AgentExecutor): ...
class Plain: ...

good = Good()
def factory(): return Good()
def raising(): raise RuntimeError("no model")
def wrong(): return 7
def two(a, b): return a
number = 7
"""


@pytest.fixture
def supabase(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in URL.items():
        monkeypatch.setenv(name, value)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


WORKER = ("run", "executors:Good", "--agent-type", "t")


@pytest.fixture
def executors(tmp_path: Path) -> None:
    (tmp_path / "executors.py").write_text(EXECUTORS)


@pytest.mark.parametrize(
    "arguments", [WORKER, ("tasks",), ("submit", "t", "p"), ("stats",), ("workers", "list")]
)
def test_no_url(command: Command, executors: None, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)
    assert result.code == 2
    assert "no SUPABASE_URL: set it in the environment or .env" in result.error


def test_no_key(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1")
    result = command("tasks")
    assert result.code == 2
    assert "no Supabase key: set SUPABASE_SERVICE_ROLE_KEY" in result.error


@pytest.mark.parametrize(
    "url", ["supabase.co", "ftp://x", "http://", "http://x:port", "https://a b", "http://x/rest/v1"]
)
def test_malformed_url(command: Command, supabase: None, url: str) -> None:
    result = command("tasks", "--url", url)
    assert result.code == 2
    assert "SUPABASE_URL" in result.error
    assert url.rstrip("/") in result.error


@pytest.mark.parametrize("arguments", [WORKER, ("tasks",), ("submit", "t", "p"), ("stats",)])
def test_unreachable_host(
    command: Command, supabase: None, executors: None, arguments: tuple[str, ...]
) -> None:
    result = command(*arguments, "--url", f"http://127.0.0.1:{closed_port()}", "--log-level", "ERROR")
    assert result.code == 3
    assert "cannot reach http://127.0.0.1:" in result.error


def test_unknown_host(command: Command, supabase: None) -> None:
    result = command("tasks", "--url", "http://nowhere.invalid")
    assert result.code == 3
    assert "cannot reach http://nowhere.invalid" in result.error


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("executors", "names no executor; expected package.module:attribute"),
        (":Good", "names no executor"),
        ("executors:", "names no executor"),
        ("nowhere:Good", "no module named 'nowhere'"),
        ("executors.inner:Good", "no module named 'executors.inner'"),
        ("executors:Missing", "module executors has no 'Missing'"),
        ("executors:Plain", "executors:Plain is a class, but no a2a AgentExecutor"),
        ("executors:number", "executors:number is a int, neither an a2a AgentExecutor nor a function"),
        ("executors:NeedsArgument", "executors:NeedsArgument() failed: TypeError"),
        ("executors:Abstract", "executors:Abstract() failed: TypeError"),
        ("executors:raising", "executors:raising() failed: RuntimeError: no model"),
        ("executors:wrong", "executors:wrong() returned a int, no a2a AgentExecutor"),
        ("executors:two", "executors:two cannot be an executor"),
        ("broken:Good", "broken cannot be imported: SyntaxError"),
        ("exploding:Good", "exploding cannot be imported: RuntimeError: two lines"),
        ("importing:Good", "importing cannot be imported: No module named 'nowhere'"),
    ],
)
def test_executor_that_cannot_be_used(
    command: Command, supabase: None, executors: None, tmp_path: Path, path: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "exploding.py").write_text("raise RuntimeError('two\\nlines')")
    (tmp_path / "importing.py").write_text("import nowhere")
    result = command("run", path, "--agent-type", "t")
    assert result.code == 2
    assert message in result.error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--polling-interval", "-1"), "--polling-interval must be a positive number of seconds, not -1"),
        (("--polling-interval", "0"), "--polling-interval must be a positive number"),
        (("--polling-interval", "nan"), "--polling-interval must be a positive number"),
        (("--sweep-interval", "-0.5"), "--sweep-interval must be a positive number"),
        (("--concurrency", "0"), "concurrency must be at least 1"),
        (("--polling-interval", "often"), "argument --polling-interval: invalid float value: 'often'"),
        (("--heartbeat", "40"), "heartbeat (40 s) must be at most half the lease"),
        (("--executor", "executors:Good"), "two executors for agent type 't'"),
        (("--push", "fast"), "push must be one of auto, changes, broadcast, both, not 'fast'"),
        (("--log-level", "LOUD"), "invalid choice: 'LOUD'"),
    ],
)
def test_wrong_option(
    command: Command, supabase: None, executors: None, option: tuple[str, str], message: str
) -> None:
    result = command(*WORKER, *option)
    assert result.code == 2
    assert message in result.error


def test_no_executor(command: Command, supabase: None) -> None:
    result = command("run", "--agent-type", "t")
    assert result.code == 2
    assert "no executor: reactive-worker run mymodule:MyExecutor" in result.error


def test_no_agent_type(command: Command, supabase: None, executors: None) -> None:
    result = command("run", "executors:Good")
    assert result.code == 2
    assert "no agent type for executors:Good" in result.error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"SUPABASE_URL=http://127.0.0.1:1\nthis is no setting\n", "line 2"),
        (b"SUPABASE_URL='http://127.0.0.1:1\n", "line 1"),
        (b"SUPABASE_URL=\xff\xfe\n", "is not UTF-8 text"),
        (b"DEFAULT_POLLING_INTERVAL=often\n", "DEFAULT_POLLING_INTERVAL must be a number, not 'often'"),
    ],
)
def test_malformed_env_file(command: Command, tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / ".env").write_bytes(text)
    result = command("tasks")
    assert result.code == 2
    assert message in result.error


def test_missing_env_file(command: Command) -> None:
    result = command("tasks", "--env-file", "nowhere.env")
    assert result.code == 2
    assert "no such env file: nowhere.env" in result.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit",), "give either [AGENT_TYPE] PROMPT"),
        (("submit", "one", "two", "three"), "give either [AGENT_TYPE] PROMPT"),
        (("submit", "p"), "no agent type"),
        (("submit", "t", "p", "--data", "{"), "--data is not JSON"),
        (("submit", "t", "p", "--data", "@nowhere.json"), "cannot read nowhere.json"),
        (("submit", "--batch", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
        (("task", "7"), "not a task id (a uuid, or at least 4 characters of its beginning): '7'"),
        (("cancel", "x"), "not a task id"),
        (("answer", "7"), "give either a TEXT or --data JSON"),
        (("events", "--after", "3"), "--after needs an ID"),
        (("tasks", "--status", "lost"), "invalid choice: 'lost'"),
        (("workers", "pause"), "give one or more workers, or --all"),
        (("fly",), "invalid choice: 'fly'"),
        ((), "required: COMMAND"),
    ],
)
def test_wrong_usage(command: Command, supabase: None, arguments: tuple[str, ...], message: str) -> None:
    result = command(*arguments)
    assert result.code in (1, 2)
    assert message in result.error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "batch.jsonl, line 2: not JSON"),
        ("7", "batch.jsonl, line 2: expected an object"),
        ('{"prompt": "p", "agent_typ": "t", "agent_type": "t"}', "task 1: unknown field 'agent_typ'"),
        ('{"prompt": "a\\u0000", "agent_type": "t"}', "task 1: prompt contains a NUL"),
        ('{"prompt": "p", "agent_type": "t", "input_data": NaN}', "task 1: input_data is nan"),
    ],
)
def test_a_wrong_line_of_a_batch_is_named_and_nothing_is_sent(
    command: Command, supabase: None, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "batch.jsonl").write_text(f'{{"agent_type": "t", "prompt": "p"}}\n{line}\n')
    result = command("submit", "--batch", "batch.jsonl")
    assert result.code in (1, 2)
    assert message in result.error


def test_debug_shows_the_traceback_and_the_line(command: Command) -> None:
    result = command("tasks", "--log-level", "DEBUG")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("reactive-worker: error: no SUPABASE_URL")


def test_options_for_all_may_stand_before_the_command(command: Command) -> None:
    assert "Traceback" in command("--log-level", "debug", "tasks").err


def test_help_documents_the_exit_codes(command: Command) -> None:
    result = command("--help")
    assert result.code == 0
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130 "):
        assert f"\n  {code}" in result.out


def test_version(command: Command) -> None:
    result = command("--version")
    assert result.code == 0
    assert result.out.startswith("reactive-worker 0.")


def test_a_key_never_appears_in_an_error(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "secret-key-of-mine")
    result = command("tasks", "--log-level", "DEBUG")
    assert result.code == 3
    assert "secret-key-of-mine" not in result.err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (WorkerStoppedError("the lease thread died"), 4, "the lease thread died"),
        (KeyboardInterrupt(), 130, ""),
        (TimeoutError("too late"), 1, "too late"),
        (RuntimeError("a\nbug"), 1, "RuntimeError: a bug (--log-level DEBUG shows the traceback)"),
    ],
)
def test_what_a_worker_ends_with_becomes_the_exit_code(
    command: Command,
    supabase: None,
    executors: None,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    from reactive_worker.worker.worker import ReactiveWorker

    async def run(self: ReactiveWorker) -> None:
        raise raised

    monkeypatch.setattr(ReactiveWorker, "run", run)
    result = command(*WORKER)
    assert result.code == code
    assert result.err == (f"reactive-worker: error: {said}\n" if said else "")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "reactive_worker", "init", str(tmp_path / "project")]
    with os.fdopen(writer, "wb") as pipe:
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
