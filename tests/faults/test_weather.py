"""Something in between answers in Supabase's place, this way and that: what a client is told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from reactive_worker import TaskClient
from reactive_worker.errors import ReactiveWorkerError, UnreachableError
from reactive_worker.testing.weather import Answer, AnsweringProxy


def behind(supabase: Any, **options: Any) -> AnsweringProxy:
    parts = urlsplit(supabase.api_url)
    return AnsweringProxy(str(parts.hostname), int(parts.port or 0), **options)


@pytest.mark.parametrize("answer", ["401", "403", "404", "409", "413", "500"])
async def test_a_client_is_told_at_once(local_supabase: Any, answer: Answer) -> None:
    key = local_supabase.service_role_key
    async with behind(local_supabase) as proxy, TaskClient.from_settings(url=proxy.url, key=key) as client:
        proxy.answer = answer
        with pytest.raises(ReactiveWorkerError):
            await client.submit_task("test", "x")
    assert proxy.given[answer] == 1


@pytest.mark.parametrize("answer", ["html", "empty", "cut", "half", "502", "503", "504", "429"])
async def test_what_is_no_answer_is_unreachable(local_supabase: Any, answer: Answer) -> None:
    key = local_supabase.service_role_key
    async with behind(local_supabase) as proxy, TaskClient.from_settings(url=proxy.url, key=key) as client:
        proxy.answer = answer
        with pytest.raises(UnreachableError):
            await client.submit_task("test", "x")


async def test_the_proxy_forwards_when_it_is_told_nothing(local_supabase: Any) -> None:
    key = local_supabase.service_role_key
    async with behind(local_supabase, only="/rpc/") as proxy, httpx.AsyncClient() as http:
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        url = f"{proxy.url}/rest/v1/rpc/reactive_worker_schema_version"
        assert (await http.post(url, json={}, headers=headers)).json() >= 1
        proxy.answer = "html"
        assert (await http.post(url, json={}, headers=headers)).text.startswith("<html>")
        # Other paths are none of its business.
        assert (await http.get(f"{proxy.url}/rest/v1/todolist", headers=headers)).json() == []
    assert proxy.given == {"passed": 2, "html": 1}
