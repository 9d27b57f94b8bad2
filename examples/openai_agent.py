"""An agent of the OpenAI Agents SDK as a worker, with a tool that needs approval.

    OPENAI_API_KEY=... python examples/openai_agent.py --agent-type helper

Takes the options of `reactive-worker run`. Any OpenAI-compatible model: OPENAI_BASE_URL, and
MODEL for its name. Needs `pip install 'reactive-worker[openai-agents]'`.
"""

import os
import sys

from agents import Agent, function_tool
from dotenv import load_dotenv

from reactive_worker import OpenAIAgentsExecutor
from reactive_worker.cli import main


@function_tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete a file."""
    return f"{path} is deleted (not really, this is an example)"


def executor() -> OpenAIAgentsExecutor:
    load_dotenv()
    model = os.environ.get("MODEL", "gpt-5-mini")
    return OpenAIAgentsExecutor(Agent("helper", instructions="Be brief.", model=model, tools=[delete_file]))


if __name__ == "__main__":
    sys.exit(main(["run", "openai_agent:executor", *sys.argv[1:]]))
