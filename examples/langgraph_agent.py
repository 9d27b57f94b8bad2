"""A LangGraph graph as a worker: a chat model with a tool, which asks before it deletes anything.

    OPENAI_API_KEY=... python examples/langgraph_agent.py --agent-type graph

Takes the options of `reactive-worker run`. Any OpenAI-compatible model: OPENAI_BASE_URL, and
MODEL for its name. Needs `pip install 'reactive-worker[langgraph]'`.
"""

import os
import sys

from dotenv import load_dotenv
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from reactive_worker import LangGraphExecutor
from reactive_worker.cli import main


@tool
def delete_file(path: str) -> str:
    """Delete a file, once a person agrees."""
    if interrupt(f"delete {path}?") != "yes":
        return f"{path} was kept"
    return f"{path} is deleted (not really, this is an example)"


def executor() -> LangGraphExecutor:
    load_dotenv()
    model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-5-mini"), streaming=True).bind_tools([delete_file])

    async def agent(state: MessagesState) -> MessagesState:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([delete_file]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    # In memory: a restart of the worker forgets open questions. AsyncPostgresSaver does not.
    return LangGraphExecutor(graph.compile(checkpointer=InMemorySaver()))


if __name__ == "__main__":
    sys.exit(main(["run", "langgraph_agent:executor", *sys.argv[1:]]))
