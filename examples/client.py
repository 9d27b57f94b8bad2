"""Submit tasks, follow one live, wait for another, cancel a third."""

import asyncio
import sys
from datetime import timedelta

from reactive_worker import TaskClient


async def main(text: str) -> None:
    async with TaskClient.from_settings() as client:
        followed, urgent, later = await client.submit_many(
            [
                {"agent_type": "shout", "prompt": text},
                {"agent_type": "shout", "prompt": f"{text}!", "priority": 10},
                {"agent_type": "shout", "prompt": f"{text}?", "delay": timedelta(hours=1)},
            ]
        )

        async for event in client.stream_events(followed):
            print(f"{event.seq:>3}  {event.event_type:<16}  {event.message or ''}")

        todo = await client.wait_for_completion(urgent, timeout=60)
        print(f"{todo.agent_status}: {todo.agent_output['text']}")

        cancelled = await client.cancel_task(later, "changed my mind")
        print(f"the one due in an hour is {cancelled.agent_status}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "hello"))
