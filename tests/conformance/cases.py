"""One case: a call of supabase-py, and everything its answer must be on the wire and for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError

from tests.conformance.conftest import Build, World

#: Not compared.
ANY: Any = type(
    "Any", (), {"__repr__": lambda _: "ANY", "__eq__": lambda *_: True, "__hash__": lambda _: 0}
)()


@dataclass(frozen=True)
class Case:
    """What is called, and what must come of it.

    Attributes
    ----------
    name:
        Of the test.
    build:
        Makes the query; it is executed by `run`.
    data:
        What the client hands to its caller.
    status, range, headers:
        Of the HTTP answer; `range` is its Content-Range, None for "there is none".
    error:
        The four keys of an error body; ANY for a text that differs between versions.
    """

    name: str
    build: Build = field(repr=False)
    data: Any = ANY
    status: int = 200
    range: Any = ANY
    count: Any = ANY
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    error: Mapping[str, Any] | None = None


def parametrize(*cases: Case) -> pytest.MarkDecorator:
    """One test a case."""
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def problem(code: str, message: Any = ANY, details: Any = ANY, hint: Any = ANY) -> dict[str, Any]:
    """An error body."""
    return {"code": code, "message": message, "details": details, "hint": hint}


def refused(
    status: int, code: str, message: Any = ANY, details: Any = ANY, hint: Any = ANY
) -> dict[str, Any]:
    """The rest of a case that is answered with an error."""
    return {"status": status, "range": None, "error": problem(code, message, details, hint)}


def run(world: World, case: Case) -> httpx.Response:
    """Execute a case and compare; returns the HTTP answer."""
    found: Any = None
    try:
        found = case.build(world).execute()
    except APIError as error:
        raised = error
    else:
        raised = None
    answer = world.answers[-1]
    assert answer.status_code == case.status, answer.text
    for name, value in case.headers.items():
        assert answer.headers.get(name) == value, (name, dict(answer.headers))
    assert answer.headers.get("content-range") == case.range
    if case.error is not None:
        body = answer.json()
        assert set(body) == {"code", "message", "details", "hint"}
        assert body == case.error, body
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert f"error={body['code']}" in answer.headers["proxy-status"]
        assert raised is not None, "the client has not raised"
        assert (raised.code, raised.message) == (body["code"], body["message"])
        assert (raised.details, raised.hint) == (body["details"], body["hint"])
        return answer
    assert raised is None, raised
    if found is None:
        # maybe_single() of nothing.
        assert case.data is None
        return answer
    assert found.data == case.data
    assert found.count == case.count
    return answer
