"""A worker of one's own, which shouts. Run it, then `reactive-worker submit shout "hello" --wait`."""

import asyncio

from a2a.helpers import new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker import ReactiveWorker


class Shout(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        await updater.add_artifact([new_text_part(context.get_user_input().upper())])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


if __name__ == "__main__":
    asyncio.run(ReactiveWorker(Shout(), agent_type="shout").run())
