"""Running a program of supabase-js cases, and making tests of what it reports."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.conformance.target import ADA, BOB, Target

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


def started(program: str, target: Target, folder: Path) -> Reports:
    """Run a program to its end; one that does not end has not reported its last cases.

    Parameters
    ----------
    folder:
        What the fixture `supabase_js` gives.
    """
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
        output, rest = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        # No failure here: this would run again, and wait again, for each of its cases.
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        rest = f"\n{program} did not end within {_PATIENCE} s"
    whole = [
        line for line in output.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")
    ]
    return Reports([json.loads(line) for line in whole], output + rest)
