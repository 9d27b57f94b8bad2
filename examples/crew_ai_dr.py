"""Deep research by a crew: a planner, a researcher and a writer. The predecessor's sample, as a worker.

    OPENAI_API_KEY=... python examples/crew_ai_dr.py --agent-type crew-ai-dr --polling-interval 5
    reactive-worker submit crew-ai-dr "How do task queues survive crashed workers?" --wait

Takes the options of `reactive-worker run`. Any OpenAI-compatible model: OPENAI_BASE_URL, and
MODEL for its name. Needs `pip install 'reactive-worker[crewai]'`. With `--data '{"depth": "brief"}'` the
report is short; with "sources" (a list of texts) it is written from those.
"""

import os
import sys
from typing import Any

from dotenv import load_dotenv

from reactive_worker import CrewAIExecutor
from reactive_worker.cli import main


def crew() -> Any:
    from crewai import LLM, Agent, Crew, Task

    llm = LLM(
        model=f"openai/{os.environ.get('MODEL', 'gpt-5-mini')}",
        base_url=os.environ.get("OPENAI_BASE_URL"),
        stream=True,
        # The worker waits for a busy model, and its slot is free meanwhile.
        max_retries=0,
    )

    def agent(role: str, goal: str) -> Any:
        return Agent(role=role, goal=goal, backstory=f"An experienced {role}.", llm=llm, max_retry_limit=0)

    plan = Task(
        description="Break the question into the few that matter: {prompt}. Depth: {depth}.",
        expected_output="Two to five questions, one a line.",
        agent=agent("research planner", "ask what decides the matter"),
    )
    research = Task(
        description="Answer each of the questions. Use these sources first, if there are any: {sources}",
        expected_output="Findings for each question, and how sure they are.",
        agent=agent("researcher", "find out what is known, and what is not"),
        context=[plan],
    )
    report = Task(
        description="Write the report on: {prompt}. Depth: {depth}.",
        expected_output="A report in Markdown: summary, findings, open questions.",
        agent=agent("writer", "say it clearly and briefly"),
        context=[plan, research],
    )
    tasks = [plan, research, report]
    return Crew(agents=[task.agent for task in tasks], tasks=tasks)


def inputs(context: Any) -> dict[str, Any]:
    data = context.input_data or {}
    return {
        "prompt": context.get_user_input(),
        "depth": data.get("depth", "thorough"),
        "sources": "\n\n".join(data.get("sources", [])) or "none",
    }


def executor() -> CrewAIExecutor:
    load_dotenv()
    return CrewAIExecutor(crew, inputs=inputs)


if __name__ == "__main__":
    sys.exit(main(["run", "crew_ai_dr:executor", *sys.argv[1:]]))
