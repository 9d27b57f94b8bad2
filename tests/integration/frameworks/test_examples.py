"""The programs of `examples/` that need a framework, as their README says to run them."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from reactive_worker import TaskClient
from reactive_worker.testing.workers import eventually
from tests.integration.frameworks.openai_server import KEY, Answer, ScriptedModel, ToolCall
from tests.integration.programs import ROOT, Program

SAMPLES = {"langgraph_agent.py": "langgraph", "openai_agent.py": "agents"}


async def test_the_sample_servers_ask_and_go_on(local_supabase: Any, tmp_path: Path) -> None:
    samples = [file for file, module in SAMPLES.items() if importlib.util.find_spec(module) is not None]
    if not samples:
        pytest.skip("none of the frameworks is installed")
    # At the same time: most of it is waiting for imports.
    await asyncio.gather(*(ask_and_answer(file, local_supabase, tmp_path) for file in samples))


async def ask_and_answer(file: str, supabase: Any, folder: Path) -> None:
    url, key, agent_type = supabase.api_url, supabase.service_role_key, file.partition(".")[0]
    with ScriptedModel() as model:
        model.script(ToolCall("delete_file", {"path": "a.txt"}), Answer("it is gone"))
        program = Program(
            [str(ROOT / "examples" / file), "--agent-type", agent_type, "--polling-interval", "1"],
            cwd=folder,
            environment={
                "SUPABASE_URL": url,
                "SUPABASE_SERVICE_ROLE_KEY": key,
                "OPENAI_BASE_URL": model.base_url,
                "OPENAI_API_KEY": KEY,
            },
        )
        try:
            async with TaskClient.from_settings(url=url, key=key) as client:
                task = await client.submit_task(agent_type, "clean up")

                async def parked() -> bool:
                    return (await client.get_task(task)).agent_status == "input_required"

                await eventually(parked, timeout=60, what=f"{file} asks")
                await client.answer_task(task, "yes")
                done = await client.wait_for_completion(task, timeout=60)
            assert done.agent_output is not None, done.error
            assert done.agent_output["text"] == "it is gone"
            assert "is deleted" in model.requests[1]["messages"][-1]["content"]
            program.terminate()
            assert await program.wait() == 0, program.stderr
        finally:
            program.kill()
