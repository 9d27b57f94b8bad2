"""Figures as small pictures of characters."""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[float]) -> str:
    """One character a value, as high as its share of the largest; zero lies on the ground.

    >>> sparkline([0, 1, 2, 4])
    '▁▂▄█'
    """
    most = max(values, default=0)
    if most <= 0:
        return _STEPS[0] * len(values)
    return "".join(_STEPS[min(len(_STEPS) - 1, int(value / most * (len(_STEPS) - 1)))] for value in values)


def bar(value: float, most: float, width: int) -> str:
    """A bar of at most `width` columns; what is more than nothing is seen.

    >>> bar(5, 10, 4), bar(0, 10, 4), bar(1, 1000, 4)
    ('██', '', '▏')
    """
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(min(1.0, value / most) * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
