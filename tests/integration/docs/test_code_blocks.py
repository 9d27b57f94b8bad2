"""Every block of code in README and docs runs, page by page, in the order a reader meets them."""

from __future__ import annotations

import ast
import asyncio
import configparser
import importlib.util
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.docs.pages import ROOT, Block, blocks, pages
from tests.integration.docs.shell import DocShell

#: Module of a framework behind an extra, as blocks import it -> the executor of ours that needs it. Where
#: one is not installed its blocks cannot run, and `test_the_framework_of_a_block_is_installed` is skipped.
FRAMEWORKS = {
    "langgraph": "langgraph",
    "langchain_openai": "langgraph",
    "crewai": "crewai",
    "agents": "openai_agents",
}

PAGES = [page for page in pages() if "/ko/" not in page and any(block.language for block in blocks(page))]
KOREAN = [page for page in pages() if "/ko/" in page]


@pytest.fixture
def shell(local_supabase: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocShell]:
    environment = {
        "SUPABASE_URL": local_supabase.api_url,
        "SUPABASE_SERVICE_ROLE_KEY": local_supabase.service_role_key,
        "SUPABASE_ANON_KEY": local_supabase.anon_key,
        "SUPABASE_JWT_SECRET": local_supabase.jwt_secret,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shell = DocShell(tmp_path, environment, local_supabase.db_url, monkeypatch)
    yield shell
    shell.close()
    # Modules that the blocks' files brought in go with the test.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
async def test_every_block_of_the_page_runs(
    page: str, shell: DocShell, local_supabase: Any, tmp_path: Path
) -> None:
    names: dict[str, Any] = {"__name__": "guide", "supabase_url": local_supabase.api_url}
    for block in blocks(page):
        if block.title:
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
        if block.shown or block.language in ("", "bash", "text") or _missing(block):
            continue
        try:
            if block.language == "python":
                await _python(block, names)
            elif block.language == "sh":
                await shell.run(block.code)
            elif block.language == "sql":
                await _sql(block, local_supabase.db_url)
            else:
                PARSERS[block.language](block.code)
        except Exception as error:
            error.add_note(f"in {block}")
            raise


@pytest.mark.parametrize("page", KOREAN)
def test_a_korean_page_has_the_code_of_its_english_one(page: str) -> None:
    english = "README.md" if page.endswith("ko/README.md") else page.replace("/ko/", "/")
    assert [block.code for block in blocks(page)] == [block.code for block in blocks(english)]


@pytest.mark.parametrize("page", pages())
def test_what_only_shows_is_no_code_in_disguise(page: str) -> None:
    """A picture has no language; and what does not run says why."""
    known = {"", "bash", "python", "sh", "sql", "text", *PARSERS}
    for block in blocks(page):
        assert block.language in known, f"{block}: how is {block.language!r} tested?"
        assert block.language or "reactive-worker " not in block.code, f"{block}: commands need ```sh"
        assert block.language != "bash" or page.endswith("README.md"), (
            f"{block}: bash is for the two commands"
        )


def test_the_first_two_bash_blocks_are_the_two_commands() -> None:
    """They make a virtual environment, so CI and a person run them; here only that they are one line each."""
    commands = [block.code for block in blocks("README.md") if block.language == "bash"]
    assert len(commands) == 2
    assert all(code.count("\n") == 1 and "python3 -m venv" in code for code in commands)
    assert "reactive-worker demo" in commands[0]
    assert "pytest" in commands[1]


async def _python(block: Block, names: dict[str, Any]) -> None:
    expected = block.raises
    try:
        for code, line in ((block.first, 1), (block.code, block.line)):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            # Empty lines in front, so that a traceback names the line of the page.
            compiled = compile("\n" * (line - 1) + code, str(ROOT / block.page), "exec", flags=flags)
            if inspect.CO_COROUTINE & compiled.co_flags:
                async with asyncio.timeout(60):
                    await eval(compiled, names)
            else:
                exec(compiled, names)
    except Exception as error:
        if type(error).__name__ != expected:
            raise
    else:
        assert not expected, f"{block}: {expected} was not raised"


async def _sql(block: Block, db_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(db_url, autocommit=True) as connection:
        await connection.execute(block.code.encode())


def _ini(text: str) -> None:
    configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None).read_string(text)


def _dotenv(text: str) -> None:
    for line in text.splitlines():
        assert not line or line.startswith("#") or "=" in line, line


def _yaml(text: str) -> None:
    yaml = importlib.import_module("yaml")
    assert all(isinstance(part, dict) for part in yaml.safe_load_all(text))


def _dockerfile(text: str) -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
    for line in text.replace("\\\n", " ").splitlines():
        assert not line or line.startswith("#") or line.split()[0] in known, line


PARSERS = {
    "json": json.loads,
    "toml": tomllib.loads,
    "ini": _ini,
    "dotenv": _dotenv,
    "yaml": _yaml,
    "dockerfile": _dockerfile,
}


def _needed(block: Block) -> list[str]:
    """The modules that a block needs and that are not part of `[test]`."""
    if block.shown or block.language != "python":
        return []
    return [
        module
        for module, ours in FRAMEWORKS.items()
        if re.search(rf"(from|import) ({module}\b|reactive_worker\.executors\.{ours}\b)", block.code)
    ]


def _missing(block: Block) -> bool:
    return any(importlib.util.find_spec(module) is None for module in _needed(block))


FRAMEWORK_BLOCKS = {
    (page, module): [str(block) for block in blocks(page) if module in _needed(block)]
    for page in PAGES
    for module in FRAMEWORKS
}


@pytest.mark.parametrize(
    ("page", "module"), [key for key, found in FRAMEWORK_BLOCKS.items() if found], ids=str
)
def test_the_framework_of_a_block_is_installed(page: str, module: str) -> None:
    """Else its blocks did not run above, which nobody would see."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: {', '.join(FRAMEWORK_BLOCKS[page, module])}")
