"""The whole system in figures, its workers, and the latest events."""

import asyncio

from reactive_worker import Monitor


async def main() -> None:
    async with Monitor.from_settings() as monitor:
        stats = await monitor.get_system_stats()
        print(
            f"{stats['total_tasks']} tasks: {stats['pending_tasks']} wait, {stats['in_progress_tasks']} run"
        )
        print(f"{stats['completed_tasks']} completed, {stats['failed_tasks']} failed")

        for worker in await monitor.get_workers():
            state = worker["desired_state"] if worker["alive"] else "lost"
            print(
                f"worker {worker['name']}: {state}, {worker['in_progress']} of {worker['concurrency']} slots"
            )

        for event in await monitor.get_recent_events(limit=10):
            print(f"{event.created_at}  {event.todolist_id}  {event.event_type}")


if __name__ == "__main__":
    asyncio.run(main())
