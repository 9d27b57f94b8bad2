"""Waiting times that grow, spread so that a fleet does not act in step: the one rule everybody waits by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random as _random
from typing import Literal

#: A source of numbers in [0, 1), as `random.random`; tests give a constant one.
RandomSource = Callable[[], float]

# 2.0 ** 1024 overflows a float, and who is refused for a day gets there.
_MOST_GROWTHS = 64


def spread(seconds: float, jitter: float, random: RandomSource = _random) -> float:
    """Move a waiting time by up to ± `jitter` (a fraction of it).

    >>> spread(10.0, 0.1, lambda: 0.0), spread(10.0, 0.1, lambda: 0.5)
    (9.0, 10.0)
    """
    return seconds * (1.0 + jitter * (2.0 * random() - 1.0))


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row.

    Parameters
    ----------
    first:
        Seconds to wait after the first failure.
    limit:
        The most seconds to wait, before jitter.
    factor:
        How much longer each further wait is.
    jitter:
        Fraction by which each wait is moved at random, either way; 0 is none. ``"full"``: each wait is drawn
        evenly from 0 to what it would be, so that a thousand that failed together do not come back together.
    random:
        Source of numbers in [0, 1).

    Raises
    ------
    ValueError
        When a number is out of its range.

    Example
    -------
    >>> pace = Backoff(0.2, 5.0, jitter=0.0)
    >>> [pace.delay(n) for n in (1, 2, 3, 100)]
    [0.2, 0.4, 0.8, 5.0]
    >>> Backoff(1.0, 300.0, jitter="full", random=lambda: 0.5).delay(4)
    4.0
    """

    first: float
    limit: float
    factor: float = 2.0
    jitter: float | Literal["full"] = 0.1
    random: RandomSource = _random

    def __post_init__(self) -> None:
        if not self.first > 0:
            raise ValueError(f"first must be above 0 seconds, not {self.first!r}")
        if not self.limit >= self.first:
            raise ValueError(f"limit must be at least first ({self.first!r} s), not {self.limit!r}")
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, not {self.factor!r}")
        if self.jitter != "full" and not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be in [0, 1) or 'full', not {self.jitter!r}")

    def delay(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row (1 is the first)."""
        growths = min(max(failures - 1, 0), _MOST_GROWTHS)
        # Multiplied out only as far as a float goes: a factor of a million is legal.
        try:
            wait = min(self.limit, self.first * self.factor**growths)
        except OverflowError:
            wait = self.limit
        return wait * self.random() if self.jitter == "full" else spread(wait, self.jitter, self.random)
