"""Answers that Python's json refuses as a whole, read as far as they can be read.

jsonb holds numbers of any length and values of any depth. `json.loads` raises for integers beyond 4,300
digits and for about a thousand levels, and one such value anywhere in an answer would take every row of it
along. Only then is an answer read here: its outer levels piece by piece, each piece by `json.loads` as
before; a piece that cannot be read is a flaw of its row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx

from reactive_worker.columns import FlawedRow

#: Levels that are taken apart: an object of lists of rows of columns, as `claim_todos` answers.
_LEVELS = 3
#: The status of an answer that has nothing to say, and says so.
_NO_CONTENT = 204
_JSON = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^,\]}\s]+")
# Everything up to the next bracket, strings skipped whole.
_NEXT_BRACKET = re.compile(r'[^"\[\]{}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"\[\]{}]*)*([\[\]{}])', re.DOTALL)


class Query(Protocol):
    """What is used of a request builder of postgrest 2.x, the asynchronous and the synchronous one."""

    request: Any


class KeptAnswer:
    """Keeps the response of one query, for postgrest throws it away when it cannot be read.

    Parameters
    ----------
    query:
        A request builder of postgrest, not executed yet.
    is_async:
        Whether it is one of the asynchronous client.
    """

    def __init__(self, query: Query, *, is_async: bool) -> None:
        self._response: httpx.Response | None = None
        send: Callable[..., Any] = query.request.send

        async def keep_async(headers: Any) -> httpx.Response:
            response = await _awaited(send(headers))
            self._response = response
            return response

        def keep(headers: Any) -> httpx.Response:
            response = self._response = send(headers)
            return response

        query.request.send = keep_async if is_async else keep

    @property
    def came(self) -> bool:
        """True when there was an answer at all."""
        return self._response is not None

    @property
    def status(self) -> str | None:
        """The HTTP status, None when there was no answer."""
        return None if self._response is None else str(self._response.status_code)

    @property
    def is_empty(self) -> bool:
        """True when there was an answer that says nothing, though its status promises more."""
        answer = self._response
        return answer is not None and answer.status_code != _NO_CONTENT and not answer.content

    def read(self) -> Any:
        """The answer, with `FlawedRow` for each object of which a part cannot be read.

        Raises
        ------
        ValueError
            It is no JSON, or there is none.
        """
        if self._response is None:
            raise ValueError("there was no answer")
        return read_answer(self._response.text)


async def _awaited(response: Awaitable[httpx.Response]) -> httpx.Response:
    return await response


def read_answer(text: str) -> Any:
    """Read JSON whose outer levels are sound, whatever lies within.

    Raises
    ------
    ValueError
        The text is no JSON.

    Example
    -------
    >>> rows = read_answer('[{"id": 1}, {"id": 2, "data": {"n": 1' + "0" * 5000 + "}}]")
    >>> rows[0], rows[1]["id"], rows[1].reason
    ({'id': 1}, 2, 'data holds a number of more than 4300 digits')
    """
    at = _skip(text, 0)
    value, at, flaw = _read(text, at, 0)
    if _skip(text, at) != len(text):
        raise ValueError(f"no JSON: something follows at position {at}")
    if flaw is not None and value is None:
        raise ValueError(f"the answer {flaw}")
    return value


def _read(text: str, at: int, level: int) -> tuple[Any, int, str | None]:
    """The value that begins here, where it ends, and what is wrong with it."""
    opening = text[at : at + 1]
    if level < _LEVELS and opening == "{":
        return _read_object(text, at, level)
    if level < _LEVELS and opening == "[":
        return _read_list(text, at, level)
    end, depth = _end_of(text, at)
    try:
        return json.loads(text[at:end]), end, None
    except RecursionError:
        return None, end, f"is nested {depth} levels deep"
    except json.JSONDecodeError:
        raise
    except ValueError:
        # The interpreter's limit against quadratic time: sys.set_int_max_str_digits.
        return None, end, "holds a number of more than 4300 digits"


def _read_object(text: str, at: int, level: int) -> tuple[Any, int, str | None]:
    columns: dict[str, Any] = {}
    flaws: dict[str, str] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise ValueError(f"no JSON: no name at position {at}")
        name, at = _JSON.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no JSON: no colon at position {at}")
        columns[name], at, flaw = _read(text, _skip(text, at + 1), level + 1)
        if flaw is not None:
            flaws[name] = flaw
        at = _after_comma(text, at, "}")
    row = FlawedRow(columns, flaws) if flaws else columns
    return row, at + 1, next(iter(flaws.values()), None)


def _read_list(text: str, at: int, level: int) -> tuple[Any, int, str | None]:
    items: list[Any] = []
    flaw: str | None = None
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        item, at, wrong = _read(text, at, level + 1)
        items.append(item)
        flaw = flaw or wrong
        at = _after_comma(text, at, "]")
    return items, at + 1, flaw


def _after_comma(text: str, at: int, closing: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != closing:
        raise ValueError(f"no JSON: neither a comma nor {closing} at position {at}")
    return at


def _end_of(text: str, at: int) -> tuple[int, int]:
    """Where the value that begins here ends, and how many levels it has."""
    opening = text[at : at + 1]
    if opening == '"':
        return _JSON.raw_decode(text, at)[1], 0
    if not opening or opening not in "[{":
        found = _SCALAR.match(text, at)
        if found is None:
            raise ValueError(f"no JSON: no value at position {at}")
        return found.end(), 0
    depth = deepest = 0
    while True:
        found = _NEXT_BRACKET.match(text, at)
        if found is None:
            raise ValueError("no JSON: it ends too early")
        at = found.end()
        if found[1] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
            if depth == 0:
                return at, deepest


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
