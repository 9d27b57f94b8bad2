"""Run workers in tests: inside the test's event loop, or as processes that can be killed."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from a2a.server.agent_execution import AgentExecutor

from reactive_worker.settings import Settings
from reactive_worker.worker.worker import ReactiveWorker

T = TypeVar("T")


class HasSupabase(Protocol):
    """Anything that knows a Supabase: `LocalSupabase` does."""

    @property
    def api_url(self) -> str: ...
    @property
    def service_role_key(self) -> str: ...


async def eventually(
    condition: Callable[[], T | Awaitable[T | None] | None],
    *,
    timeout: float = 20.0,
    what: str = "",
    interval: float = 0.02,
) -> T:
    """Wait until `condition` returns something true, and return it.

    Parameters
    ----------
    condition:
        Called again and again, sync or async.
    timeout:
        Seconds after which AssertionError is raised.
    what:
        Named in that error.
    interval:
        Seconds between calls.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await cast("Awaitable[T | None]", value)
        if value:
            return cast("T", value)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(interval)


def worker_settings(supabase: HasSupabase, **options: Any) -> Settings:
    """Settings for a worker on `supabase`; lease 5 s, heartbeat 1 s.

    Independent of the environment, but for ``REACTIVE_WORKER_PUSH``: so a whole test run can be made one way.
    """
    values: dict[str, Any] = {
        "url": supabase.api_url,
        "key": supabase.service_role_key,
        "push": os.environ.get("REACTIVE_WORKER_PUSH", "auto"),
        "lease": 5.0,
        "heartbeat": 1.0,
        "drain_timeout": 10.0,
        "cancel_grace": 2.0,
        **options,
    }
    return Settings(**values)


@asynccontextmanager
async def running_worker(
    supabase: HasSupabase,
    executor: AgentExecutor | None = None,
    *,
    agent_type: str = "test",
    executors: Mapping[str, AgentExecutor] | None = None,
    settings: Mapping[str, Any] | None = None,
    **hooks: Any,
) -> AsyncGenerator[ReactiveWorker]:
    """A `ReactiveWorker` running in this event loop; stopped, and its errors raised, at the end.

    Example
    -------
    >>> async with running_worker(local_supabase, EchoExecutor()) as worker:  # doctest: +SKIP
    ...     ...
    """
    worker = ReactiveWorker(
        executor,
        agent_type=agent_type,
        executors=executors,
        settings=worker_settings(supabase, **(settings or {})),
        handle_signals=False,
        **hooks,
    )
    task = asyncio.create_task(worker.run(), name=f"worker {worker.id}")
    ready = asyncio.create_task(worker.ready())
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield worker
    finally:
        ready.cancel()
        worker.stop()
        await task


class WorkerProcess:
    """`reactive-worker run` as a process of its own.

    Parameters
    ----------
    supabase:
        Where it works.
    executor:
        ``module:attribute``, importable from `cwd`.
    agent_type:
        What it runs.
    options:
        Further command-line options, ``lease=5`` becomes ``--lease 5``.
    """

    def __init__(
        self,
        supabase: HasSupabase,
        executor: str,
        *,
        agent_type: str = "test",
        cwd: Path | None = None,
        log: Path | None = None,
        **options: Any,
    ) -> None:
        values = {"lease": 5, "heartbeat": 1, **options}
        self._command = [
            sys.executable,
            "-m",
            "reactive_worker.cli",
            "run",
            executor,
            "--agent-type",
            agent_type,
        ]
        for name, value in values.items():
            self._command += [f"--{name.replace('_', '-')}", str(value)]
        self._environment = {
            **os.environ,
            "SUPABASE_URL": supabase.api_url,
            "SUPABASE_SERVICE_ROLE_KEY": supabase.service_role_key,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(cwd) if cwd else "", os.environ.get("PYTHONPATH", "")])
            ),
        }
        self._cwd = cwd
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises when it was not started."""
        if self._process is None:
            raise RuntimeError("the worker process was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> WorkerProcess:
        """Start it; returns at once."""
        with open(self._log or os.devnull, "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._environment, stdout=log, stderr=log
            )
        return self

    def kill(self) -> None:
        """kill -9, and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM; returns at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    async def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end and return the exit code."""
        (code,) = await eventually(lambda: _ended(self.returncode), timeout=timeout, what="the process ended")
        return code


def _ended(code: int | None) -> tuple[int] | None:
    return None if code is None else (code,)
