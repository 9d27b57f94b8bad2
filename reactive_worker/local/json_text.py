"""JSON from strangers: a value that PostgreSQL and every other reader of it take too, or a ValueError.

Python's own reader takes more than JSON (``NaN``), lets half of a surrogate pair through, which then cannot
be written anywhere, and gives up on deep nesting with an error that is no ValueError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn, cast

#: Deepest nesting of arrays and objects.
MAX_DEPTH = 500

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Read a JSON text.

    Parameters
    ----------
    text:
        As it came; bytes must be UTF-8.
    finite:
        Also refuse numbers too large for a float: they would be written again as ``Infinity``.

    Returns
    -------
    Any
        Its value.

    Raises
    ------
    ValueError
        It is no JSON, nested deeper than `MAX_DEPTH`, or has characters no text can have.

    Example
    -------
    >>> read_json('{"a": [1, null]}')
    {'a': [1, None]}
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite if finite else None)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if _SURROGATE.search(text):
        # A pair has become one character by now; only half a pair cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError("nested too deep")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()
