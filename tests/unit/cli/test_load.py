"""What `run` accepts as an executor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reactive_worker.cli.load import load_executor
from reactive_worker.errors import ExecutorLoadError
from reactive_worker.executors.function import FunctionExecutor

SOURCE = """
from a2a.server.agent_execution import AgentExecutor

class Mine(AgentExecutor):
    async def execute(self, context, event_queue): ...
    async def cancel(self, context, event_queue): ...

class Outer:
    Inner = Mine

instance = Mine()
def factory(): return Mine()
def shout(prompt): return prompt.upper()
async def later(prompt): return prompt
async def chunks(prompt): yield prompt
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loadable_executors.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "loadable_executors", raising=False)


@pytest.mark.parametrize("name", ["Mine", "instance", "factory", "Outer.Inner"])
def test_a_class_an_instance_and_a_factory_give_the_executor_itself(name: str) -> None:
    assert type(load_executor(f"loadable_executors:{name}")).__name__ == "Mine"


@pytest.mark.parametrize("name", ["shout", "later", "chunks"])
def test_a_function_of_a_prompt_becomes_an_executor(name: str) -> None:
    assert isinstance(load_executor(f"loadable_executors:{name}"), FunctionExecutor)


def test_an_installed_module_is_found_too() -> None:
    assert type(load_executor("reactive_worker.executors.digest:DigestExecutor")).__name__ == "DigestExecutor"


def test_objects_of_frameworks_run_by_themselves(tmp_path: Path) -> None:
    pytest.importorskip("langgraph")
    (tmp_path / "loadable_graphs.py").write_text(
        "from typing import TypedDict\n"
        "from langgraph.graph import END, START, StateGraph\n"
        "class State(TypedDict):\n    prompt: str\n"
        "builder = StateGraph(State)\n"
        "builder.add_node('one', lambda state: state)\n"
        "builder.add_edge(START, 'one')\n"
        "builder.add_edge('one', END)\n"
        "graph = builder.compile()\n"
        "def make(): return graph\n"
    )
    for name in ("graph", "make"):
        assert type(load_executor(f"loadable_graphs:{name}")).__name__ == "LangGraphExecutor"
    with pytest.raises(ExecutorLoadError, match=r"builder cannot be run: .*compile\(\) first"):
        load_executor("loadable_graphs:builder")


def test_a_class_of_ones_own_called_agent_is_none_of_a_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # OpenAI has a package of this name: what other tests of this process imported comes back afterwards.
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"] or ["agents"]:
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    (tmp_path / "agents.py").write_text(
        "class Agent:\n    def __call__(self, prompt): return prompt\nmine = Agent()\n"
    )
    assert isinstance(load_executor("agents:mine"), FunctionExecutor)
