"""The scripted model itself: the frameworks' tests are worth what it is."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.frameworks.openai_server import (
    KEY,
    Answer,
    Cut,
    Failure,
    ScriptedModel,
    Stall,
    ToolCall,
    reached,
)


async def test_it_says_what_it_is_told(model: ScriptedModel) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    path = "/chat/completions"
    plain, streamed = {"messages": []}, {"messages": [], "stream": True}
    async with httpx.AsyncClient(base_url=model.base_url, headers=headers, timeout=10) as http:
        assert (await http.get("/models")).json()["data"][0]["id"] == "scripted"
        model.script(Answer("a b"), Answer("a b"), ToolCall("add", {"a": 1}), ToolCall("add", {"a": 1}))
        whole = (await http.post(path, json=plain)).json()
        assert whole["choices"][0]["message"]["content"] == "a b"
        assert _text((await http.post(path, json=streamed)).text) == "a b"
        called = (await http.post(path, json=plain)).json()["choices"][0]
        assert called["finish_reason"] == "tool_calls"
        assert json.loads(called["message"]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
        deltas = _deltas((await http.post(path, json=streamed)).text)
        pieces = [each["tool_calls"][0]["function"]["arguments"] for each in deltas if "tool_calls" in each]
        assert len(pieces) == 2
        assert json.loads("".join(pieces)) == {"a": 1}

        model.script(Failure(429, retry_after=7), Failure(500), Cut(), Cut())
        limited = await http.post(path, json=plain)
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
        assert (await http.post(path, json=plain)).status_code == 500
        for body in (plain, streamed):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(path, json=body)
        assert (await http.post(path, json=plain)).status_code == 400
        assert (await http.post(path, json=plain, headers={"authorization": "no"})).status_code == 401
        assert len(model.requests) == 9

        released, abandoned = Stall(), Stall()
        released.release.set()
        model.script(released, abandoned)
        assert _text((await http.post(path, json=streamed)).text) == "thinking done"
        async with http.stream("POST", path, json=streamed):
            await reached(abandoned.reached)
        await reached(abandoned.abandoned)
        assert model.left == 0


def _deltas(text: str) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line)["choices"][0]["delta"] for line in lines]


def _text(text: str) -> str:
    return "".join(delta.get("content") or "" for delta in _deltas(text))
