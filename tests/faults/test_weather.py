"""Something in between answers in Supabase's place, this way and that: nothing is lost, pinned or doubled."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from reactive_worker import TaskClient
from reactive_worker.errors import ReactiveWorkerError, UnreachableError
from reactive_worker.testing.weather import ANSWERS, Answer, AnsweringProxy
from reactive_worker.testing.workers import eventually, running_worker
from tests.faults.conftest import LITERAL, Through, completed
from tests.faults.test_outages import QUICK, Counting
from tests.support import broken_logs, count, insert, query

#: How often each answer is given before the weather changes.
TIMES = 12


def behind(supabase: Any, **options: Any) -> AnsweringProxy:
    parts = urlsplit(supabase.api_url)
    return AnsweringProxy(str(parts.hostname), int(parts.port or 0), **options)


async def nothing_is_wrong(db: str, echo: Counting, prompts: list[str]) -> None:
    """All tasks completed, each by one run, with logs without gaps; nobody holds anything."""
    await eventually(lambda: completed(db, len(prompts)), timeout=120)
    assert await count(db, "in_progress") == 0
    assert await broken_logs(db) == []
    assert echo.each_once(prompts)
    assert await query(db, "select id, error from todolist where failures > 0 or error is not null") == []


@pytest.mark.timeout(300)
async def test_every_answer_in_turn_loses_nothing(local_supabase: Any) -> None:
    echo, db = Counting(), local_supabase.db_url
    prompts: list[str] = []
    answers: list[Answer] = list(ANSWERS)
    random.Random(9).shuffle(answers)
    async with behind(local_supabase, only="/rest/v1/", seed=9) as proxy:
        seen = Through(proxy.url, local_supabase.service_role_key)
        # A lease that outlives each kind of weather: what is lost must be lost by an answer, not by time.
        settings = {**QUICK, "lease": 60.0, "heartbeat": 0.5, "polling_interval": 0.2}
        async with running_worker(seen, echo, settings=settings):
            for answer in answers:
                more = [f"{answer} {n}" for n in range(10)]
                prompts += more
                wanted = len(prompts)
                await insert(db, more, input_data={"sleep": 0.05})
                # Some of them run when the weather begins, some end in it.
                await eventually(lambda wanted=wanted: completed(db, wanted - 8))
                proxy.answer = answer
                before = proxy.given[answer]
                await eventually(lambda a=answer, b=before: proxy.given[a] >= b + TIMES, timeout=60)
                proxy.answer = None
                await eventually(
                    lambda wanted=wanted: completed(db, wanted), timeout=60, what=f"all end after {answer}"
                )
            proxy.answer = "any"
            more = [f"any {n}" for n in range(50)]
            prompts += more
            await insert(db, more, input_data={"sleep": 0.05})
            before = proxy.given.total()
            await eventually(lambda: proxy.given.total() >= before + 5 * TIMES, timeout=60)
            proxy.answer = None
            await nothing_is_wrong(db, echo, prompts)
    assert set(answers) <= set(proxy.given)


if LITERAL:

    @pytest.mark.timeout(1800)
    async def test_ten_minutes_of_weather_lose_nothing(local_supabase: Any) -> None:
        echo, db = Counting(), local_supabase.db_url
        prompts: list[str] = []
        async with behind(local_supabase, only="/rest/v1/", seed=10) as proxy:
            seen = Through(proxy.url, local_supabase.service_role_key)
            async with running_worker(seen, echo, settings={**QUICK, "lease": 120.0, "heartbeat": 10.0}):
                storm = asyncio.create_task(proxy.storm(600, spell=30))
                while not storm.done():
                    more = [f"t {len(prompts) + n}" for n in range(5)]
                    prompts += more
                    await insert(db, more, input_data={"sleep": 0.2})
                    await asyncio.wait([storm], timeout=1)
                await storm
                await nothing_is_wrong(db, echo, prompts)


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
