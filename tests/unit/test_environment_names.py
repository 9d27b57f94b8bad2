"""No test sets a variable that nobody reads: it would pass whatever the variable is meant to do.

Looked at are the names that tests hand to `setenv` and `delenv`, keys of dictionaries, keywords in capitals,
and lines ``NAME=value`` of texts: all that may become an environment or a ``.env`` file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactive_worker.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)]

SETTINGS = {name for spec in Settings.__dataclass_fields__.values() for name in spec.metadata["env"]}
#: Read by single commands, by the fixtures and by examples; each with who reads it.
OTHERS = {
    "SUPABASE_DB_URL": "doctor --db-url",
    "SUPABASE_JWT_SECRET": "token mint",
    "SUPABASE_JWT_SECRET_FILE": "token mint",
    "REACTIVE_WORKER_PG_BIN": "reactive_worker.testing.plugin",
    "REACTIVE_WORKER_NODE_MODULES": "tests.node",
    "COMP_WORDS": "the shell, when it completes a command",
    "COMP_CWORD": "the shell, when it completes a command",
    "REMOTE_AGENT_URL": "examples/remote_agent.py and tests.remote_agent",
    "OPENAI_API_KEY": "the SDKs of models",
    "OPENAI_BASE_URL": "the SDKs of models",
    "CREWAI_TRACING_ENABLED": "CrewAI",
    "CREWAI_DISABLE_TELEMETRY": "CrewAI",
    "OTEL_SDK_DISABLED": "CrewAI",
    "NO_COLOR": "the console",
    "TERM": "the console",
    "COLUMNS": "the console",
    "TOKEN": "a leaky executor in the tests of secrets",
}
KNOWN = {*SETTINGS, *(f"{name}_FILE" for name in SETTINGS if "KEY" in name), *OTHERS}

#: A key of a dictionary or a keyword counts when it has an underscore: ``{"FAILED": ...}`` is a status.
NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
LINE = re.compile(r"^(?:export )?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)=", re.MULTILINE)


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything a file may put into an environment."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield from (
                (node.lineno, word.arg) for word in node.keywords if word.arg and NAME.fullmatch(word.arg)
            )
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called in ("setenv", "delenv") and node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and NAME.fullmatch(key.value):
                    yield key.lineno, key.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            yield from ((node.lineno, found) for found in LINE.findall(text))


def test_no_test_sets_a_variable_that_nobody_reads() -> None:
    unknown = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in FILES
        for line, name in names_in(file.read_text())
        if name not in KNOWN
    ]
    assert unknown == [], "nothing reads these; if something does, add them to OTHERS"


@pytest.mark.parametrize(
    "source",
    [
        "patch.setenv('WORKER_LEASE', '1')",
        "patch.delenv('REACTIVE_WORKER_LEASES')",
        "environment = {'SUPABASE_KEYS': url}",
        "run(REACTIVE_WORKER_LEASES='1')",
        "file.write_text('A=1\\nWORKER_LEASE=44\\n')",
        "file.write_bytes(b'WORKER_LEASE=44')",
    ],
)
def test_every_way_to_set_one_is_seen(source: str) -> None:
    assert [name for _, name in names_in(source) if name not in KNOWN]
