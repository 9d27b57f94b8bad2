"""`dev` and `demo`: a Supabase of one's own, started and ended by the command line."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_worker.testing.workers import eventually
from tests.integration.programs import Program


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


def start(programs: list[Program], cwd: Path, *arguments: str) -> Program:
    programs.append(Program(["-m", "reactive_worker.cli", *arguments], cwd=cwd))
    return programs[-1]


async def first_line(program: Program) -> dict[str, Any]:
    def line() -> str | None:
        assert program.returncode is None, program.stderr
        text, newline, _ = program.stdout.partition("\n")
        return text if newline else None

    described: dict[str, Any] = json.loads(await eventually(line, timeout=60))
    return described


@pytest.mark.timeout(240)
async def test_dev_serves_until_it_is_ended_and_keeps_its_data(
    programs: list[Program], tmp_path: Path
) -> None:
    rows: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        dev = start(programs, tmp_path, "dev", "--port", "0", "--db-port", "0", "--json")
        told = await first_line(dev)
        assert set(told) >= {
            "api_url",
            "db_url",
            "anon_key",
            "service_role_key",
            "publishable_key",
            "secret_key",
            "jwt_secret",
        }
        headers = {"apikey": told["service_role_key"], "Authorization": f"Bearer {told['service_role_key']}"}
        async with httpx.AsyncClient(base_url=told["api_url"], headers=headers) as http:
            task = {"agent_type": "t", "prompt": "kept"}
            assert (await http.post("/rest/v1/todolist", json=task)).status_code == 201
            rows.append(len((await http.get("/rest/v1/todolist?prompt=eq.kept")).json()))
        dev.signal(number)
        assert await dev.wait() == 0
        assert "Traceback" not in dev.stderr
    assert rows == [1, 2]


@pytest.mark.timeout(120)
async def test_a_taken_port_is_one_line(programs: list[Program], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--port", "--db-port"):
            other = "--db-port" if option == "--port" else "--port"
            dev = start(programs, tmp_path, "dev", option, str(port), other, "0", "--ephemeral")
            assert await dev.wait() in (2, 3)
            assert len(dev.stderr.splitlines()) == 1, dev.stderr
            assert str(port) in dev.stderr


@pytest.mark.timeout(240)
async def test_the_demo_completes_everything_through_realtime_and_sweep(
    programs: list[Program], tmp_path: Path
) -> None:
    demo = start(programs, tmp_path, "demo", "--json")
    assert await demo.wait(timeout=200) == 0, demo.stderr
    summary = json.loads(demo.stdout.splitlines()[-1])
    assert summary["completed"] == summary["tasks"] >= 3
    assert summary["through_realtime"] >= 1
    assert summary["through_sweep"] >= 1
    assert "Traceback" not in demo.stderr


@pytest.mark.timeout(240)
async def test_the_demo_for_people(programs: list[Program], tmp_path: Path) -> None:
    (tmp_path / "moon.txt").write_text("The moon pulls the water of the oceans. So the tides rise and fall.")
    demo = start(programs, tmp_path, "demo", "moon.txt", "The quick brown fox jumps over the lazy dog.")
    assert await demo.wait(timeout=200) == 0, demo.stderr
    assert demo.stderr == ""
    assert "├─▶ dedupe ─▶ prioritise ─▶ dispatch ─▶ 3 completed" in demo.stdout
    assert "3 of 3 tasks completed" in demo.stdout
    assert "moon.txt" in demo.stdout


@pytest.mark.parametrize("moment", ["starting PostgreSQL", "ready at", "is registered", "Realtime pushed"])
async def test_ctrl_c_ends_the_demo_at_any_moment_and_leaves_nothing(
    programs: list[Program], tmp_path: Path, moment: str
) -> None:
    demo = start(programs, tmp_path, "demo")
    await eventually(lambda: moment in demo.stdout, timeout=60)
    demo.signal(signal.SIGINT)
    assert await demo.wait(30) == 130, demo.stderr
    assert demo.stderr == ""
    found = re.search(r"http://127\.0\.0\.1:(\d+)", demo.stdout)
    if found is not None:
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", int(found[1])))
