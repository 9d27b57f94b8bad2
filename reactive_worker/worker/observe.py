"""From coroutines to observables, on the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import reactivex
from reactivex import Observable
from reactivex.abc import SchedulerBase

T = TypeVar("T")


def observe(call: Callable[[], Awaitable[T]]) -> Observable[T]:
    """A cold observable that runs a coroutine at subscription and cancels it at disposal."""

    async def run() -> T:
        return await call()

    def start(_: SchedulerBase) -> Observable[T]:
        return reactivex.from_future(asyncio.ensure_future(run()))

    return reactivex.defer(start)
