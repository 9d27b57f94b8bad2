"""Python programs as processes, with what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from reactive_worker.settings import Settings
from reactive_worker.testing.workers import eventually

ROOT = Path(__file__).parents[2]


class Program:
    """``python ARGUMENTS`` in `cwd`, away from the developer's own settings.

    Output goes to files: a pipe nobody reads would stop the program when it is full.
    """

    def __init__(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        variables = {name for spec in Settings.__dataclass_fields__.values() for name in spec.metadata["env"]}
        inherited = {name: value for name, value in os.environ.items() if name not in variables}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return os.pread(self._out.fileno(), 10_000_000, 0).decode()

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return os.pread(self._err.fileno(), 10_000_000, 0).decode()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it whatever it does, and let go of its output."""
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._err.close()

    async def wait(self, timeout: float = 60.0) -> int:
        """Exit code."""
        await eventually(lambda: self._process.poll() is not None, timeout=timeout, what="the program ended")
        return self._process.returncode
