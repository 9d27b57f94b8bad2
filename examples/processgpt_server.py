"""Programs written for process-gpt-agent-sdk: only the import lines are new."""

import argparse
import asyncio
import os

from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor
from dotenv import load_dotenv
from supabase import create_client

from reactive_worker.processgpt import ProcessGPTAgentServer, ProcessGPTClient, ProcessGPTRequestContext


class ShoutContext(ProcessGPTRequestContext):
    def __init__(self, todolist_item):
        super().__init__(todolist_item)

    def get_mark(self):
        return (self.todolist_item.input_data or {}).get("mark", "!")


class ShoutExecutor(AgentExecutor):
    async def execute(self, context, event_queue):
        await event_queue.enqueue_event(
            new_text_message(context.get_user_input().upper() + context.get_mark())
        )

    async def cancel(self, context, event_queue):
        pass


async def submit(agent_type, prompt):
    supabase = create_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SERVICE_ROLE_KEY"])
    client = ProcessGPTClient(supabase)
    todolist_id = await client.submit_task(agent_type=agent_type, prompt=prompt, input_data={"mark": "?!"})
    result = await client.wait_for_completion(todolist_id)
    print(result.agent_status, result.agent_output)


if __name__ == "__main__":
    load_dotenv()
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent-type", default="shout")
    parser.add_argument("--polling-interval", type=int, default=5)
    parser.add_argument("--submit", metavar="PROMPT")
    args = parser.parse_args()
    if args.submit:
        asyncio.run(submit(args.agent_type, args.submit))
    else:
        server = ProcessGPTAgentServer(
            agent_executor=ShoutExecutor(),
            agent_type=args.agent_type,
            polling_interval=args.polling_interval,
            context_class=ShoutContext,
        )
        asyncio.run(server.run())
