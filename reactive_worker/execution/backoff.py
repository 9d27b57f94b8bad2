"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before try ``n + 1`` is drawn evenly from 0 to ``min(maximum, base * factor ** n)`` seconds: a
    thousand tasks that failed together because one service was down do not come back together.

    Parameters
    ----------
    base:
        Upper bound of the first wait, seconds.
    factor:
        Growth per failure.
    maximum:
        Upper bound of any wait, seconds.
    draw:
        Source of numbers in [0, 1); tests pass their own.

    Example
    -------
    >>> Backoff(base=1, factor=2, maximum=300, draw=lambda: 0.5)(3)
    4.0
    """

    base: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not self.base >= 0:
            raise ValueError(f"base is not a number of seconds from 0: {self.base!r}")
        if not self.factor >= 1:
            raise ValueError(f"factor is below 1: {self.factor!r}")
        if not self.maximum >= self.base:
            raise ValueError(f"maximum is below base: {self.maximum!r}")

    def __call__(self, failures: int) -> float:
        """Seconds to wait after `failures` earlier failures (0 = this was the first)."""
        return self.draw() * self.ceiling(failures)

    def ceiling(self, failures: int) -> float:
        """Longest wait after `failures` earlier failures, seconds."""
        # The exponent is bounded because 2.0 ** 1024 overflows, and a row may say anything.
        return min(self.maximum, self.base * self.factor ** min(max(failures, 0), 64))
