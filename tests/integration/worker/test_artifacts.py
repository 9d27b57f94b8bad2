"""Large results in Storage, files in and out, on the embedded stack: the row stays small, nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.helpers import new_raw_part, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from supabase import create_async_client

from reactive_worker.cli import main
from reactive_worker.client.tasks import TaskClient
from reactive_worker.errors import ConfigurationError, InvalidTaskError
from reactive_worker.testing.workers import eventually, running_worker
from tests.support import broken_logs, query

FILE = bytes(range(256)) * 8_000  # 2 MB
WORDS = [f"word {n} " * 3_000 for n in range(20)]


class Maker(AgentExecutor):
    """Makes a file and a long text, or reads the file it is given."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
        if context.get_user_input() == "read":
            assert context.message is not None
            (part,) = [part for part in context.message.parts if part.url]
            async with httpx.AsyncClient() as http:
                content = (await http.get(part.url)).content
            text = f"{part.filename} {part.media_type} {content == FILE}"
            await updater.add_artifact([new_text_part(text)], artifact_id="text")
            return
        file = new_raw_part(FILE, filename="all bytes.bin", media_type="application/x-bytes")
        await updater.add_artifact([file], artifact_id="file")
        for n, words in enumerate(WORDS):
            await updater.add_artifact([new_text_part(words)], artifact_id="text", append=n > 0)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def test_files_and_large_results(
    local_supabase: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The command below sets up logging as a program of its own would.
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", local_supabase.service_role_key)
    db = local_supabase.db_url
    url, key = local_supabase.api_url, local_supabase.service_role_key
    user = str(uuid.uuid4())
    settings = {"artifacts_bucket": "results", "ownerless_buckets": "others, results"}
    async with (
        TaskClient.from_settings(url=url, key=key) as client,
        TaskClient.from_settings(url=url, key=local_supabase.keys.mint_user(user)) as hers,
        running_worker(local_supabase, Maker(), settings=settings) as worker,
    ):
        id = await hers.submit_task("test", "make")
        todo = await client.wait_for_completion(id, timeout=60)
        assert todo.agent_status == "completed", todo.error
        (row,) = await query(
            db,
            "select length(agent_output::text) as output, (select max(length(event_data::text)) from events)"
            " as event, (select public from storage.buckets where id = 'results') as public from todolist",
        )
        assert row["public"] is False
        assert row["output"] < 10_000
        assert row["event"] < 300_000

        # The owner has no policy on the bucket: the signed url is enough.
        for reader in (client, hers):
            output = await reader.fetch_output(id)
            assert output["text"] == "".join(WORDS)
            assert await reader.download_artifact(id, "file") == FILE
            assert (await reader.download_artifact(id, "text")).decode() == "".join(WORDS)
        shown = await asyncio.to_thread(
            main, ["artifact", id, "file", "-o", str(tmp_path / "out.bin"), "--url", url]
        )
        assert (shown, (tmp_path / "out.bin").read_bytes() == FILE) == (0, True)
        with pytest.raises(InvalidTaskError, match="has no artifact 'nothing' with a part 0"):
            await client.download_artifact(id, "nothing")
        part = todo.agent_output["artifacts"][0]["parts"][0]
        assert (part["filename"], part["metadata"]["storage"]["size"]) == ("all bytes.bin", len(FILE))
        async with httpx.AsyncClient() as http:
            answer = await http.get(part["url"])
            assert (answer.content, answer.headers["content-type"]) == (FILE, "application/x-bytes")
            assert "all%20bytes.bin" in answer.headers["content-disposition"]
            assert (await http.get(part["url"].split("?")[0])).status_code == 400

        # Storage is away when the result is to be stored: it waits, and nothing is lost.
        local_supabase.faults.storage_status = 503
        late = await client.submit_task("test", "make")
        await eventually(lambda: query(db, "select 1 from todolist where agent_status = 'in_progress'"))
        await eventually(lambda: not worker.running)
        assert (await client.get_task(late)).agent_status == "in_progress"
        local_supabase.faults.storage_status = None
        await client.wait_for_completion(late, timeout=60)
        assert (await client.fetch_output(late))["text"] == "".join(WORDS)

        (tmp_path / "in.bin").write_bytes(FILE)
        file = await client.upload_file("results", tmp_path / "in.bin")
        read = await client.submit_task("test", "read", {"files": [file]})
        todo = await client.wait_for_completion(read, timeout=60)
        assert todo.agent_output["text"] == "in.bin application/octet-stream True"
        # Somebody's task may not read what is not theirs, though the worker's key could.
        theirs = await hers.submit_task("test", "read", {"files": [file]})
        todo = await client.wait_for_completion(theirs, timeout=60)
        assert (todo.agent_status, todo.error["type"]) == ("failed", "PermanentFailure")
        assert "may not read results/inputs/" in todo.error["message"]
        # Nor what a back end submits in their name.
        theirs = await client.submit_task("test", "read", {"files": [file]}, owner_id=user)
        assert (await hers.wait_for_completion(theirs, timeout=60)).error["type"] == "PermanentFailure"
    assert await broken_logs(db) == []


async def test_a_public_bucket_is_refused(local_supabase: Any) -> None:
    supabase = await create_async_client(local_supabase.api_url, local_supabase.service_role_key)
    await supabase.storage.create_bucket("open", options={"public": True})
    await supabase.storage._client.aclose()
    with pytest.raises(ConfigurationError, match="'open' is public"):
        async with running_worker(local_supabase, Maker(), settings={"artifacts_bucket": "open"}):
            await eventually(lambda: False, timeout=5)
