"""The command line against a real Supabase: what it prints, for people and for scripts, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pty
import signal
import sys
import termios
import uuid
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.cli import main
from reactive_worker.settings import Settings
from reactive_worker.testing.workers import eventually
from tests.integration.programs import Program
from tests.support import insert, query

EXECUTOR = """
import asyncio
from reactive_worker.executors.function import FunctionExecutor

def shout(prompt: str):
    return prompt.upper()

def fail(prompt: str):
    raise RuntimeError("no voice")

async def sleep(prompt: str):
    await asyncio.sleep(600)

async def slowly(prompt: str):
    for word in prompt.split():
        yield word + " "
    await asyncio.sleep(600)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has run to its end."""

    stdout: str
    stderr: str


class Shell:
    """`reactive-worker ...` with the settings of one Supabase.

    Commands that end by themselves run in this process (a Python of their own costs a second each); others,
    and whatever gets signals, are processes.
    """

    def __init__(self, cwd: Path, environment: dict[str, str], patch: pytest.MonkeyPatch) -> None:
        self.cwd, self.environment = cwd, environment
        self.started: list[Program] = []
        self._patch = patch

    def start(self, *arguments: str, **environment: str) -> Program:
        command = ["-m", "reactive_worker.cli", *arguments]
        program = Program(command, cwd=self.cwd, environment={**self.environment, **environment})
        self.started.append(program)
        return program

    async def run(self, *arguments: str, code: int = 0, **environment: str) -> Ended:
        """Run to the end, which must have this exit code."""
        out, err = io.StringIO(), io.StringIO()
        with self._patch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            found = await asyncio.to_thread(main, arguments)
        assert found == code, (out.getvalue(), err.getvalue())
        return Ended(out.getvalue(), err.getvalue())

    async def json(self, *arguments: str, code: int = 0) -> list[Any]:
        """The JSON lines of a command."""
        program = await self.run(*arguments, "--json", code=code)
        return [json.loads(line) for line in program.stdout.splitlines()]

    async def worker(self, path: str, *options: str) -> Program:
        """A running worker for agent type `test`."""
        program = self.start(
            "run", path, "--agent-type", "test", "--lease", "5", "--heartbeat", "1", *options
        )
        await eventually(lambda: "is registered" in program.stderr or program_failed(program))
        return program


def program_failed(program: Program) -> bool:
    assert program.returncode is None, program.stderr
    return False


@pytest.fixture
def shell(local_supabase: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    (tmp_path / "mine.py").write_text(EXECUTOR)
    for spec in Settings.__dataclass_fields__.values():
        for name in spec.metadata["env"]:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    shell = Shell(
        tmp_path,
        {
            "SUPABASE_URL": local_supabase.api_url,
            "SUPABASE_SERVICE_ROLE_KEY": local_supabase.service_role_key,
        },
        monkeypatch,
    )
    yield shell
    root.handlers[:] = handlers
    root.setLevel(level)
    for program in shell.started:
        program.kill()


def error_of(program: Ended) -> str:
    """The one line of complaint."""
    lines = program.stderr.splitlines()
    assert len(lines) == 1, program.stderr
    assert "Traceback" not in program.stderr
    return lines[0]


# -- what is wrong with the server ------------------------------------------------------------------------

COMMANDS: list[Sequence[str]] = [
    ("run", "mine:shout", "--agent-type", "test"),
    ("tasks",),
    ("submit", "test", "p"),
    ("stats",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_wrong_key(shell: Shell, command: Sequence[str]) -> None:
    program = await shell.run(*command, code=3, SUPABASE_SERVICE_ROLE_KEY="sb_secret_wrong")
    assert "does not accept this key" in error_of(program)


async def test_a_key_signed_by_another_project(shell: Shell, local_supabase: Any) -> None:
    head, payload, _ = local_supabase.service_role_key.split(".")
    forged = f"{head}.{payload}.{'A' * 43}"
    program = await shell.run("tasks", code=3, SUPABASE_SERVICE_ROLE_KEY=forged)
    assert "does not accept this key" in error_of(program)
    assert forged not in program.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_the_anon_key_where_the_service_key_is_needed(
    shell: Shell, local_supabase: Any, command: Sequence[str]
) -> None:
    program = await shell.run(*command, code=3, SUPABASE_SERVICE_ROLE_KEY=local_supabase.anon_key)
    assert "service role key" in error_of(program)


async def test_migrations_not_applied(shell: Shell, local_supabase: Any) -> None:
    await query(
        local_supabase.db_url,
        "drop schema public cascade; create schema public; notify pgrst, 'reload schema'",
    )
    for command in COMMANDS:
        program = await shell.run(*command, code=3)
        assert "supabase db push" in error_of(program)


# -- tasks ------------------------------------------------------------------------------------------------


async def test_submit_prints_the_id_and_tasks_lists_it(shell: Shell, local_supabase: Any) -> None:
    program = await shell.run("submit", "test", "hello", "--priority", "3", "--data", '{"a": 1}')
    id = program.stdout.strip()
    assert str(uuid.UUID(id)) == id
    (row,) = await shell.json("tasks")
    assert (row["id"], row["priority"], row["input_data"]) == (id, 3, {"a": 1})
    listing = await shell.run("tasks")
    heads, line = listing.stdout.splitlines()
    assert heads.split() == ["id", "agent", "type", "status", "prio", "runs", "age", "prompt"]
    assert line.startswith(f"{id}  test        pending     3     0  ")
    assert (await shell.run("tasks", "--status", "failed")).stdout == "no tasks with status failed\n"


async def test_a_batch_is_submitted_in_order(shell: Shell, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"p{n}", "priority": n}) for n in range(3)]
    (tmp_path / "batch.jsonl").write_text("\n".join(lines) + "\n\n")
    program = await shell.run("submit", "--batch", "batch.jsonl", DEFAULT_AGENT_TYPE="test")
    rows = {row["id"]: row["prompt"] for row in await shell.json("tasks")}
    assert [rows[id] for id in program.stdout.split()] == ["p0", "p1", "p2"]


async def test_any_beginning_of_an_id_will_do(shell: Shell, local_supabase: Any) -> None:
    ids = [f"0b8e2a52-{middle}-4fd6-8d5f-57a5d6a32b0e" for middle in ("1111", "2222")]
    for id in ids:
        await query(
            local_supabase.db_url, "insert into todolist (id, agent_type, prompt) values (%s, 't', 'p')", id
        )
    (row,) = await shell.json("task", "0b8e2a521")
    assert row["id"] == ids[0]
    assert (await shell.run("cancel", "0B8E2A52-2")).stdout == f"{ids[1]}  cancelled\n"
    (event,) = await shell.json("events", ids[1][:10])
    assert event["todolist_id"] == ids[1]
    ambiguous = error_of(await shell.run("task", "0b8e", code=1))
    assert f"several tasks' ids begin with 0b8e: {ids[0]}, {ids[1]}" in ambiguous
    assert "no task whose id begins with ffff" in error_of(await shell.run("wait", "ffff", code=1))


async def test_an_agent_type_nobody_serves_is_said_at_once(shell: Shell) -> None:
    alone = await shell.run("submit", "tets", "p")
    assert alone.stderr == "no worker serves 'tets' now: none is alive. The task waits until one is\n"
    await shell.worker("mine:shout")
    near = await shell.run("submit", "tets", "p")
    assert "no worker serves 'tets' now; the nearest that is served: 'test'" in near.stderr
    assert (await shell.run("submit", "test", "p")).stderr == ""


async def test_submit_and_wait_tells_the_id_streams_and_leaves_the_task_alone(
    shell: Shell, local_supabase: Any
) -> None:
    await shell.worker("mine:slowly")
    program = shell.start("submit", "test", "one two three", "--wait")
    await eventually(lambda: "one two three" in program.stdout)
    id = program.stderr.split()[1]
    program.signal(signal.SIGINT)
    assert await program.wait() == 130
    assert f"wait again:  reactive-worker wait {id}" in program.stderr
    assert f"end it:      reactive-worker cancel {id}" in program.stderr
    assert "Traceback" not in program.stderr
    assert await _status(local_supabase.db_url, id, "in_progress")


async def test_the_traceback_of_a_bug_is_shown_with_its_task(shell: Shell) -> None:
    await shell.worker("mine:fail")
    program = await shell.run("submit", "test", "x", "--max-failures", "1", "--wait", code=1)
    shown = await shell.run("task", program.stderr.split()[1][:8])
    assert 'mine.py", line' in shown.stdout
    assert shown.stdout.rstrip().endswith("RuntimeError: no voice")


async def test_submit_and_wait_with_a_worker(shell: Shell) -> None:
    await shell.worker("mine:shout")
    program = await shell.run("submit", "test", "hello", "--wait")
    assert program.stdout.strip() == "HELLO"
    (row,) = await shell.json("submit", "test", "again", "--wait")
    assert row["agent_status"] == "completed"
    assert row["agent_output"]["text"] == "AGAIN"
    details = await shell.run("task", row["id"])
    assert "completed" in details.stdout
    assert "task_started" in details.stdout
    assert details.stdout.rstrip().endswith("AGAIN")


async def test_waiting_for_a_failed_task_ends_with_1(shell: Shell) -> None:
    worker = await shell.worker("mine:fail")
    program = await shell.run("submit", "test", "x", "--max-failures", "1", "--wait", code=1)
    assert "RuntimeError: no voice" in program.stdout
    assert "failed: RuntimeError: no voice" in worker.stderr
    assert program.stderr.startswith("submitted ")


async def test_waiting_too_long_ends_with_1(shell: Shell) -> None:
    program = await shell.run("submit", "nobody", "x", "--wait-timeout", "0.3", code=1)
    submitted, unserved, error = program.stderr.splitlines()
    assert submitted.startswith("submitted ")
    assert unserved.startswith("no worker serves 'nobody' now: none is alive")
    assert "has not ended within 0.3 s; it goes on" in error


async def test_cancel_retry_and_refusals(shell: Shell) -> None:
    id = (await shell.run("submit", "test", "p")).stdout.strip()
    assert (await shell.run("cancel", id, "--reason", "late")).stdout == f"{id}  cancelled\n"
    assert (await shell.run("retry", id)).stdout == f"{id}  pending\n"
    refused = await shell.run("answer", id, "yes", code=1)
    assert "pending" in error_of(refused)
    refused = await shell.run("steer", id, "faster", code=1)
    assert "cannot be steered: it is pending" in error_of(refused)
    nobody = str(uuid.uuid4())
    for command in (("task", nobody), ("cancel", nobody), ("retry", nobody), ("events", nobody)):
        assert nobody in error_of(await shell.run(*command, code=1))


async def test_events_of_one_task_and_of_all(shell: Shell) -> None:
    id = (await shell.run("submit", "test", "p")).stdout.strip()
    await shell.run("cancel", id)
    (event,) = await shell.json("events", id)
    assert (event["seq"], event["event_type"]) == (1, "task_cancelled")
    assert await shell.json("events", id, "--after", "1") == []
    assert [row["todolist_id"] for row in await shell.json("events")] == [id]
    assert (await shell.json("events", id, "--tail")) == [event]


async def test_events_are_followed_until_ctrl_c(shell: Shell) -> None:
    program = shell.start("events", "--tail")
    id = (await shell.run("submit", "test", "p")).stdout.strip()
    await shell.run("cancel", id)
    await eventually(lambda: "task_cancelled" in program.stdout)
    program.signal(signal.SIGINT)
    assert await program.wait() == 130
    assert program.stderr == ""


async def test_stats(shell: Shell, local_supabase: Any) -> None:
    await insert(local_supabase.db_url, ["a", "b"])
    (stats,) = await shell.json("stats")
    assert stats["pending_tasks"] == 2
    program = await shell.run("stats")
    assert "workers alive  0" in program.stdout
    assert program.stdout.splitlines()[1].split()[:2] == ["test", "2"]


# -- workers ----------------------------------------------------------------------------------------------


async def test_sigterm_drains_a_worker_and_ends_with_0(shell: Shell, local_supabase: Any) -> None:
    worker = await shell.worker("mine:shout")
    worker.terminate()
    assert await worker.wait() == 0
    assert "Traceback" not in worker.stderr
    assert await query(local_supabase.db_url, "select * from workers") == []


async def test_ctrl_c_ends_a_worker_with_130_and_hands_its_task_back(
    shell: Shell, local_supabase: Any
) -> None:
    worker = await shell.worker("mine:sleep", "--drain-timeout", "0")
    (id,) = await insert(local_supabase.db_url, ["x"])
    await eventually(lambda: _status(local_supabase.db_url, id, "in_progress"))
    worker.signal(signal.SIGINT)
    assert await worker.wait() == 130
    (row,) = await query(local_supabase.db_url, "select agent_status, failures from todolist")
    assert row == {"agent_status": "pending", "failures": 0}


async def _status(db_url: str, id: str, status: str) -> bool:
    rows = await query(db_url, "select agent_status from todolist where id = %s", id)
    return rows[0]["agent_status"] == status


async def test_json_logs_of_a_worker(shell: Shell) -> None:
    worker = await shell.worker("mine:shout", "--json", "--name", "one")
    worker.terminate()
    assert await worker.wait() == 0
    lines = [json.loads(line) for line in worker.stderr.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any("worker one is registered" in line["message"] for line in lines)


async def test_workers_are_listed_paused_resumed_and_drained(shell: Shell, local_supabase: Any) -> None:
    worker = await shell.worker("mine:shout", "--name", "steered")
    (known,) = await shell.json("workers", "list")
    assert (known["name"], known["alive"], known["agent_types"]) == ("steered", True, ["test"])
    assert "steered" in (await shell.run("workers", "list")).stdout

    assert "paused" in (await shell.run("workers", "pause", "steered")).stdout
    await eventually(lambda: "paused" in worker.stderr.lower())
    (id,) = await insert(local_supabase.db_url, ["waits"])
    assert await _status(local_supabase.db_url, id, "pending")
    await shell.run("workers", "resume", known["id"][:8])
    await eventually(lambda: _status(local_supabase.db_url, id, "completed"))

    await shell.run("workers", "drain", "--all")
    assert await worker.wait() == 0
    assert (await shell.run("workers", "list")).stdout == "no workers\n"
    refused = await shell.run("workers", "pause", "steered", code=2)
    assert "no worker 'steered'" in error_of(refused)


async def test_several_executors_in_one_worker(shell: Shell) -> None:
    worker = shell.start("run", "--executor", "loud=mine:shout", "--executor", "broken=mine:fail")
    await eventually(lambda: "is registered" in worker.stderr)
    loud = await shell.run("submit", "loud", "x", "--wait")
    assert loud.stdout.strip() == "X"
    await shell.run("submit", "broken", "x", "--max-failures", "1", "--wait", code=1)


async def test_waiting_from_a_script(shell: Shell, local_supabase: Any) -> None:
    """Ended or asking: 0; failed, or not in time: 1."""
    await shell.worker("mine:shout")
    done = (await shell.run("submit", "test", "well")).stdout.strip()
    later = (await shell.run("submit", "test", "later", "--delay", "3600")).stdout.strip()
    assert "WELL" in (await shell.run("wait", done)).stdout
    ended = await shell.run("wait", done, later, "--timeout", "0.05", code=1)
    assert "has not ended within 0.05 s" in error_of(ended)
    await query(
        local_supabase.db_url, "update todolist set agent_status = 'input_required' where id = %s", later
    )
    assert f"reactive-worker answer {later} TEXT" in (await shell.run("wait", later)).stdout


async def test_watching_in_a_terminal(shell: Shell, local_supabase: Any) -> None:
    """In a real pseudo-terminal: it draws, follows, and q ends it and puts the terminal back."""
    await shell.run("submit", "test", "first")
    refused = await shell.run("watch", code=2)
    assert "watch draws on a terminal" in error_of(refused)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    seen = bytearray()
    asyncio.get_running_loop().add_reader(ours, lambda: seen.extend(os.read(ours, 65536)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_worker.cli", "watch", "--interval", "0.1"),
        env={**os.environ, **shell.environment, "TERM": "xterm-256color", "COLUMNS": "130", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        await eventually(lambda: b"none is registered" in seen, timeout=30)
        await shell.worker("mine:shout")
        # The worker and the events of the task it runs.
        await eventually(lambda: b"task_completed" in seen, timeout=30)
        await eventually(lambda: b"workers (1)" in seen)
        # An arrow key begins with Escape, and ends nothing: it goes on drawing.
        os.write(ours, b"\x1b[A")
        await shell.run("submit", "test", "second")
        await eventually(lambda: b"SECOND" in seen)
        os.write(ours, b"q")
        assert await process.wait() == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)
