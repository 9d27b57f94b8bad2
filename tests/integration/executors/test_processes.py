"""What executors do to their process: forks never act as a second worker, threads keep nobody waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reactive_worker.testing.workers import WorkerProcess, eventually
from tests.support import count, insert

#: A program that runs executors as a worker does, and says how each ended and what came of its child.
PROGRAM = """
import asyncio, json, multiprocessing, os, sys, threading
from reactive_worker.executors.function import FunctionExecutor
from tests.unit.execution.fakes import make_runner, make_todo

def child(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def main():
    for name, source in json.loads(sys.argv[1]).items():
        space = globals()
        exec(source, space)
        runner = make_runner(FunctionExecutor(space["f"]))
        outcome = await runner.start(make_todo(), lambda event: None).wait()
        # Written once for each process that gets here: by one.
        os.write(1, (json.dumps([name, outcome.output and outcome.output["text"]]) + "\\n").encode())

asyncio.run(main())
"""

SYNC = "def f(prompt):\n    pid = os.fork()\n    if pid:\n        return str(child(pid))\n    {end}\n"
ASYNC = "async def f(prompt):\n    pid = os.fork()\n    if pid:\n        return str(child(pid))\n    {end}\n"
TASK = (
    "async def f(prompt):\n    async def other():\n        pid = os.fork()\n        if pid:\n"
    "            return str(child(pid))\n        {end}\n    return await asyncio.create_task(other())\n"
)
POOL = (
    "def square(n):\n    return n * n\n"
    "def f(prompt):\n    with multiprocessing.get_context('{end}').Pool(2) as pool:\n"
    "        return str(sum(pool.map(square, range(4))))\n"
)
FUNCTIONS: dict[str, tuple[str, str]] = {
    "a thread, sys.exit": (SYNC.format(end="sys.exit(7)"), "7"),
    "a thread, sys.exit with words": (SYNC.format(end="sys.exit('no')"), "1"),
    "a thread, an exception": (SYNC.format(end="raise ValueError('in the child')"), "1"),
    "a thread, a return": (SYNC.format(end="return 'child'"), "0"),
    "a coroutine, sys.exit": (ASYNC.format(end="sys.exit(7)"), "7"),
    "a coroutine, KeyboardInterrupt": (ASYNC.format(end="raise KeyboardInterrupt"), "130"),
    "a coroutine, an exception": (ASYNC.format(end="raise ValueError('in the child')"), "1"),
    "a coroutine, a return": (ASYNC.format(end="return 'child'"), "0"),
    "a coroutine, a sleep": (ASYNC.format(end="await asyncio.sleep(0)"), "0"),
    "a coroutine, a wait": (ASYNC.format(end="await asyncio.Event().wait()"), "1"),
    "a task of its own, a return": (TASK.format(end="return 'child'"), "0"),
    "a task of its own, sys.exit": (TASK.format(end="sys.exit(7)"), "0"),
    "multiprocessing by fork": (POOL.replace("{end}", "fork"), "14"),
}


def test_a_forked_child_never_goes_on_as_the_worker() -> None:
    sources = {name: source for name, (source, _) in FUNCTIONS.items()}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sources)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert said == [[name, status] for name, (_, status) in FUNCTIONS.items()], ran.stderr
    assert ran.returncode == 0


EXECUTORS = """
import asyncio, threading, time

async def thread(prompt):
    threading.Thread(target=time.sleep, args=(600,), name="forgotten").start()
    return "ok"

async def pool(prompt):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    return "ok"
"""


@pytest.mark.parametrize(("function", "number", "code"), [("pool", 15, 0), ("thread", 2, 130)])
async def test_what_an_executor_leaves_behind_does_not_keep_the_process(
    local_supabase: Any, tmp_path: Path, function: str, number: int, code: int
) -> None:
    (tmp_path / "leaving.py").write_text(EXECUTORS)
    db, log = local_supabase.db_url, tmp_path / "log"
    await insert(db, ["x"])
    worker = WorkerProcess(local_supabase, f"leaving:{function}", cwd=tmp_path, log=log).start()
    try:

        async def completed() -> bool:
            return await count(db, "completed") == 1

        await eventually(completed, timeout=60)
        os.kill(worker.pid, number)
        # The thread sleeps for ten minutes.
        assert await worker.wait(120) == code
    finally:
        worker.kill()
    assert "ending without what executors have left behind" in log.read_text()
