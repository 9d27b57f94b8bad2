"""Which refusals are verdicts about the data, and which are weather: only the first are final."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions

from reactive_worker.errors import (
    DataRefusedError,
    EventRefusedError,
    EventTooLargeError,
    InvalidKeyError,
    InvalidTaskError,
    PermissionDeniedError,
    ReactiveWorkerError,
    SchemaMissingError,
    SupabaseError,
    UnreachableError,
    UnreadableAnswerError,
    WorkerExpiredError,
)
from reactive_worker.store.connection import Connection
from reactive_worker.store.store import TodoStore
from reactive_worker.store.translate import is_retryable, translate

URL = "http://project.example"


def told(code: str | None, message: str = "refused") -> ReactiveWorkerError:
    error = APIError({"code": code, "message": message, "hint": None, "details": None})
    return translate(error, what="rpc finish_todos", url=URL)


ABOUT_DATA = [
    "22023", "22P02", "22P05", "22003", "22001", "22032", "23514", "23502", "23505", "23503", "413",
    "54000", "54001",
]  # fmt: skip
WEATHER = [
    None, "", "400", "401", "403", "404", "405", "406", "409", "410", "418", "421", "425", "429", "451",
    "500", "502", "503", "504", "520", "522", "530", "200", "204", "301",
    "42501", "42883", "42P01", "28P01", "08006", "40001", "40P01", "53300", "55P03", "57014", "57P01",
    "58030", "XX000", "25006", "PGRST000", "PGRST001", "PGRST002", "PGRST003", "PGRST106", "PGRST200",
    "PGRST202", "PGRST203", "PGRST204", "PGRST205", "PGRST300", "PGRST301", "PGRST302", "PGRST303", "RW001",
]  # fmt: skip


@pytest.mark.parametrize("code", ABOUT_DATA)
def test_only_what_is_about_the_data_is_final(code: str) -> None:
    error = told(code)
    assert isinstance(error, DataRefusedError)
    assert error.code == code
    assert not is_retryable(error)


def test_what_a_trigger_of_the_project_raises_is_about_the_row() -> None:
    error = told("P0001", "refused by the project")
    assert isinstance(error, InvalidTaskError)
    assert not is_retryable(error)
    assert "refused by the project" in str(error)


@pytest.mark.parametrize("code", WEATHER)
def test_all_else_may_pass(code: str | None) -> None:
    assert is_retryable(told(code))


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (EventRefusedError("NaN"), False),
        (EventTooLargeError("too large"), False),
        (WorkerExpiredError(), True),
        (SupabaseError("?"), True),
        (ReactiveWorkerError("?"), True),
        (httpx.ReadTimeout("slow"), True),
        (OSError("no route"), True),
        (TimeoutError(), True),
        (TypeError("not JSON"), False),
        (ValueError("NaN"), False),
        (RecursionError(), False),
    ],
)
def test_errors_of_our_own(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("401", PermissionDeniedError),
        ("403", PermissionDeniedError),
        ("PGRST301", InvalidKeyError),
        ("PGRST202", SchemaMissingError),
        ("503", UnreachableError),
        ("200", UnreadableAnswerError),
    ],
)
def test_a_client_is_told_at_once_what_it_is(code: str, kind: type[Exception]) -> None:
    assert type(told(code)) is kind


def test_a_page_is_not_quoted_whole() -> None:
    error = APIError({"code": "404", "message": "Not Found", "hint": None, "details": "<html>" * 10_000})
    assert len(str(translate(error, what="rpc x", url=URL))) < 1_000


# -- through a real client -----------------------------------------------------------------------------------


async def ask(answer: Callable[[httpx.Request], httpx.Response], call: Callable[[TodoStore], Any]) -> Any:
    """What a call of the store gives when this answers it."""
    connection = await Connection.open(URL, "key")
    http = connection._http
    assert http is not None
    http._transport = httpx.MockTransport(answer)
    try:
        return await call(TodoStore(connection))
    finally:
        await connection.aclose()


def says(status: int, body: str, kind: str = "application/json") -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, content=body.encode(), headers={"content-type": kind})


CALLS: dict[str, Callable[[TodoStore], Any]] = {
    "finish": lambda store: store.finish("w", []),
    "append": lambda store: store.append("w", []),
    "get": lambda store: store.get("1"),
    "events": lambda store: store.events("1"),
    "submit": lambda store: store.submit([{}]),
    "workers": lambda store: store.workers(),
    "version": lambda store: store.schema_version(),
    "cancel": lambda store: store.cancel("1"),
    "stats": lambda store: store.stats(),
}

BAD = {
    "HTML": says(200, "<html>maintenance</html>", "text/html"),
    "HTML that says it is JSON": says(200, "<html>maintenance</html>"),
    "empty": says(200, ""),
    "blank": says(200, " \n"),
    "half": says(200, '{"lost": ["'),
    "a text": says(200, '"back soon"'),
    "another object": says(200, '{"status": "ok"}'),
    "a truth": says(200, "true"),
    "a number with a fraction": says(200, "1.5"),
    "nothing": says(200, "null"),
}


#: Of these any object could be the answer.
OBJECTS = ("stats", "cancel")


@pytest.mark.parametrize(
    ("call", "bad"),
    [(call, bad) for call in CALLS for bad in BAD if not (bad == "another object" and call in OBJECTS)],
)
async def test_a_good_status_with_anything_else_than_the_answer_is_unreachable(call: str, bad: str) -> None:
    with pytest.raises(UnreachableError) as caught:
        await ask(BAD[bad], CALLS[call])
    assert is_retryable(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (413, '{"message": "Request size limit exceeded"}', DataRefusedError),
        (413, "<html>too large</html>", DataRefusedError),
        (401, '{"message": "Invalid API key"}', InvalidKeyError),
        (401, "{}", PermissionDeniedError),
        (403, "<html>Forbidden (WAF)</html>", PermissionDeniedError),
        (503, '{"error": "upstream"}', UnreachableError),
        (503, "[]", UnreachableError),
        (429, "slow down", UnreachableError),
        (404, "{}", SupabaseError),
    ],
)
async def test_a_gateway_without_codes_is_judged_by_its_status(
    status: int, body: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        await ask(says(status, body), CALLS["finish"])
    assert is_retryable(caught.value) is (status != 413)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\ud800"], ids=["NaN", "a set", "half a character"])
async def test_what_is_no_json_is_refused_before_it_is_sent(value: Any) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"results": []})

    with pytest.raises(DataRefusedError, match="cannot be sent"):
        await ask(answer, lambda store: store.finish("w", [{"output": value}]))
    assert sent == []


async def test_what_is_too_deep_to_be_sent_or_read_says_so() -> None:
    deep: Any = 1
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(DataRefusedError, match="RecursionError"):
        await ask(says(200, "{}"), lambda store: store.finish("w", [{"output": deep}]))
    answer = says(200, '{"results": ' + "[" * 20_000 + "]" * 20_000 + "}")
    with pytest.raises(UnreadableAnswerError):
        await ask(answer, CALLS["finish"])


# -- redirects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to", ["http://evil.example/", "https://evil.example/rest", "http://project.example:8080/", "ftp://x/"]
)
async def test_a_redirect_to_another_origin_is_given_neither_keys_nor_data(status: int, to: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": to})

    with pytest.raises(UnreachableError):
        await ask(answer, CALLS["finish"])
    assert asked == [f"{URL}/rest/v1/rpc/finish_todos"]


async def test_a_redirect_within_the_project_and_to_its_https_is_followed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(308, headers={"location": str(request.url.copy_with(scheme="https"))})
        assert json.loads(request.content)["p_worker_id"] == "w"
        return httpx.Response(200, json={"results": []})

    await ask(answer, CALLS["finish"])


async def test_a_users_own_client_is_judged_the_same_way() -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(BAD["HTML"]))
    client = AsyncClient(URL, "key", AsyncClientOptions(httpx_client=http))
    with pytest.raises(UnreadableAnswerError):
        await TodoStore(Connection(client)).workers()
    await http.aclose()
