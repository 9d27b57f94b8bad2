"""One way for every command that speaks to the tasks."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from reactive_worker.cli.options import load_settings, quiet_logging

if TYPE_CHECKING:
    from reactive_worker.client.tasks import TaskClient


def run_with_client(
    args: argparse.Namespace, work: Callable[[TaskClient], Awaitable[int]], **overrides: Any
) -> int:
    """Run `work` with a TaskClient made from the options; returns what it returns, an exit code."""
    quiet_logging(args)
    settings = load_settings(args, **overrides)
    from reactive_worker.client.tasks import TaskClient

    async def main() -> int:
        async with TaskClient.from_settings(settings) as client:
            return await work(client)

    return asyncio.run(main())
