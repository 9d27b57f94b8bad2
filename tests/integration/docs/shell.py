"""Just enough of a shell to run the commands of the documentation in this process.

A Python of its own costs a second of CPU each; only a worker in the background (``... &``) gets one.
"""

from __future__ import annotations

import asyncio
import io
import re
import shlex
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from reactive_worker.cli import main
from reactive_worker.testing.workers import eventually
from tests.integration.programs import Program
from tests.support import query

_ASSIGNMENT = re.compile(r"(?P<name>[A-Z][A-Z_]*)=\$\((?P<command>.*)\)")


class DocShell:
    """Runs ``reactive-worker ...``, ``python FILE`` and ``NAME=$(...)``; anything else is an error."""

    def __init__(
        self, cwd: Path, environment: Mapping[str, str], db_url: str, patch: pytest.MonkeyPatch
    ) -> None:
        self._cwd = cwd
        self._db_url = db_url
        self._variables = dict(environment)
        self._patch = patch
        self._background: list[Program] = []

    async def run(self, code: str) -> None:
        """Run each line to its end; the exit code must be 0."""
        for line in code.replace("\\\n", " ").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if assignment := _ASSIGNMENT.fullmatch(line.strip()):
                self._variables[assignment["name"]] = (await self._command(assignment["command"])).strip()
            else:
                await self._command(line)

    def close(self) -> None:
        """End what still runs in the background."""
        for program in self._background:
            program.kill()

    async def _command(self, line: str) -> str:
        words = [self._expand(word) for word in shlex.split(line, comments=True)]
        if words[-1] == "&":
            await self._start(line, words[:-1])
            return ""
        if words[0] != "reactive-worker":
            raise AssertionError(f"the documentation tests do not know how to run: {line}")
        return await self._in_process(line, words[1:])

    def _expand(self, word: str) -> str:
        return re.sub(r"\$([A-Z][A-Z_]*)", lambda name: self._variables[name[1]], word)

    async def _in_process(self, line: str, words: list[str]) -> str:
        out, err = io.StringIO(), io.StringIO()
        with self._patch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in self._variables.items():
                patch.setenv(name, value)
            code = await asyncio.to_thread(main, words)
        assert code == 0, f"{line}\nended with {code}\n{out.getvalue()}{err.getvalue()}"
        return out.getvalue()

    async def _start(self, line: str, words: list[str]) -> None:
        heads = {"reactive-worker": ["-m", "reactive_worker.cli"], "python": []}
        program = Program([*heads[words[0]], *words[1:]], cwd=self._cwd, environment=self._variables)
        self._background.append(program)

        async def is_up() -> bool:
            assert program.returncode is None, f"{line}\n{program.stdout}{program.stderr}"
            rows = await query(self._db_url, "select id from workers")
            return len(rows) == len(self._background)

        await eventually(is_up, timeout=60, what=f"{line} is a registered worker")
