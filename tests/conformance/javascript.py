"""Running a program of supabase-js cases, and making tests of what it reports."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.target import ADA, BOB, Target
from tests.node import folder_with_supabase_js

_FOLDER = Path(__file__).parent / "js"
#: Seconds a program may take.
_PATIENCE = 100


def names_in(program: str) -> list[str]:
    """The cases of a program, in its order; read, not run."""
    source = (_FOLDER / program).read_text()
    found = re.findall(r"^\s*(check|filter)\('([^']+)'", source, re.MULTILINE)
    return [name if kind == "check" else f"filter: {name}" for kind, name in found]


class Reports:
    """What a program said of its cases."""

    def __init__(self, said: list[dict[str, Any]], rest: str) -> None:
        self.names = [each["name"] for each in said]
        self._said = {each["name"]: each for each in said}
        self._rest = rest

    def judge(self, name: str) -> None:
        """Pass or fail as the program did."""
        report = self._said.get(name)
        assert report is not None, f"the program has not got there: {self._rest[-2000:]}"
        assert report["ok"], report["error"]


def started(program: str, target: Target) -> Reports:
    """Run a program to its end."""
    folder = folder_with_supabase_js()
    users = {
        name: {"id": user_id, "token": target.user(user_id, expires_in=life)}
        for name, user_id, life in (("ada", ADA, 3600), ("bob", BOB, 3600), ("expired", ADA, -3600))
    }
    settings = {
        "modules": str(folder),
        "url": target.url,
        "serviceKey": target.service_key,
        "anonKey": target.anon_key,
        "prefix": target.prefix,
        "users": users,
    }
    try:
        done = subprocess.run(
            ["node", str(_FOLDER / program), json.dumps(settings)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout if isinstance(error.stdout, bytes) else b""
        pytest.fail(f"{program} did not end within {_PATIENCE} s: {output.decode(errors='replace')[-2000:]}")
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Reports(said, done.stdout + done.stderr)
