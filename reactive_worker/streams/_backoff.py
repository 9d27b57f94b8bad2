"""Waiting times that grow, spread so that a fleet does not act in step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random as _random

#: A source of numbers in [0, 1), as `random.random`; tests give a constant one.
RandomSource = Callable[[], float]

# 2 ** 1024 overflows a float, and a sink that is refused for a day gets there.
_MOST_DOUBLINGS = 64


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
        Fraction by which each wait is moved at random, either way; 0 is none.
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
    """

    first: float
    limit: float
    factor: float = 2.0
    jitter: float = 0.1
    random: RandomSource = _random

    def __post_init__(self) -> None:
        if self.first <= 0:
            raise ValueError(f"first must be above 0 seconds, not {self.first!r}")
        if self.limit < self.first:
            raise ValueError(f"limit must be at least first ({self.first!r} s), not {self.limit!r}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), not {self.jitter!r}")

    def delay(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row (1 is the first)."""
        doublings = min(max(failures - 1, 0), _MOST_DOUBLINGS)
        return spread(min(self.limit, self.first * self.factor**doublings), self.jitter, self.random)
