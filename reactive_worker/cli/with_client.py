"""One way for every command that speaks to a Supabase."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_worker.cli.options import load_settings, quiet_logging

if TYPE_CHECKING:
    from reactive_worker.client.monitor import Monitor
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.store.store import TodoStore


class Supabase(NamedTuple):
    """What commands work with, all over one connection."""

    client: TaskClient
    monitor: Monitor
    store: TodoStore


def run_connected(
    args: argparse.Namespace, work: Callable[[Supabase], Awaitable[int]], **overrides: Any
) -> int:
    """Run `work` with a connection made from the options; returns what it returns, an exit code."""
    quiet_logging(args)
    settings = load_settings(args, **overrides)
    from reactive_worker.client.monitor import Monitor
    from reactive_worker.client.tasks import TaskClient
    from reactive_worker.store.connection import Connection
    from reactive_worker.store.store import TodoStore

    async def main() -> int:
        connection = await Connection.open(settings.url, settings.key)
        try:
            async with TaskClient(connection) as client:
                return await work(Supabase(client, Monitor(connection), TodoStore(connection)))
        finally:
            await connection.aclose()

    return asyncio.run(main())
