"""The one shape of a worker's background duties: start, a turn whenever one is due, stop."""

from __future__ import annotations

import asyncio
import contextlib


class Duty:
    """Something that goes on beside the stream for as long as a worker lives.

    A subclass says what one `turn` is; tests call it by hand. Time is the event loop's, so a test that moves
    the loop's clock moves every duty.

    Parameters
    ----------
    name:
        What the task is called in logs and in the error of a worker that stopped because it died.

    Example
    -------
    >>> class Tick(Duty):
    ...     async def turn(self) -> float | None:
    ...         print("tick")
    ...         return 60.0
    >>> asyncio.run(Tick("tick").turn())
    tick
    60.0
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    async def turn(self) -> float | None:
        """Do what is due once.

        Returns
        -------
        Seconds until the next turn; None: not before `wake`.

        Raises
        ------
        Whatever a subclass cannot survive: the duty dies of it, and the worker stops loudly.
        """
        raise NotImplementedError

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that takes the turns; it ends by `stop`, or by dying. None before `start`."""
        return self._task

    async def start(self) -> None:
        """Begin, with a turn at once, and return; safe to repeat."""
        if self._task is None:
            self._ending = False
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    def wake(self) -> None:
        """Take a turn now, or right after the one under way."""
        self._woken.set()

    async def stop(self) -> None:
        """End, and wait until nothing is left; safe to repeat. Raises what the duty died of."""
        task = self._task
        if task is None:
            return
        if not self._ending:
            # Once only: a second cancellation would interrupt the cleaning up after the first.
            self._ending = True
            task.cancel()
        await asyncio.wait([task])
        self._task = None
        if not task.cancelled():
            task.result()

    async def rest(self, seconds: float | None) -> None:
        """Wait until the next turn is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            await self.rest(await self.turn())
