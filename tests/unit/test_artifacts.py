"""What leaves the row, what stays, and that the whole comes back; files a task may be given."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from reactive_worker.artifacts.offload import Artifacts
from reactive_worker.artifacts.reader import Reader
from reactive_worker.artifacts.signer import FileSigner
from reactive_worker.errors import PermanentFailure, SupabaseError
from reactive_worker.execution.conversation import request_of
from reactive_worker.execution.files import files_of
from reactive_worker.execution.wire import decode
from reactive_worker.models import Outcome, TodoEvent
from reactive_worker.store.objects import FileMissingError
from tests.unit.execution.fakes import ID, make_todo

LIMIT = 10_000


class FakeObjects:
    """A bucket in memory, with the methods of `ObjectStore`."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.puts = 0

    async def put(self, bucket: str, path: str, content: bytes, media_type: str) -> None:
        self.puts += 1
        self.files.setdefault((bucket, path), (content, media_type))

    url = "https://storage.example"

    async def get(self, bucket: str, path: str, *, limit: int = 0) -> bytes:
        try:
            return self.files[bucket, path][0]
        except KeyError:
            raise FileMissingError(f"{bucket}/{path}") from None

    async def sign(self, bucket: str, path: str, seconds: int, *, filename: str = "") -> str:
        await self.get(bucket, path)
        return f"https://storage.example/{bucket}/{path}?for={seconds}&as={filename}"


@pytest.fixture
def objects() -> Any:
    return FakeObjects()


def artifacts(objects: Any) -> Artifacts:
    return Artifacts(objects, "results", limit=LIMIT, url_life=60)


def update(*parts: dict[str, Any]) -> dict[str, Any]:
    artifact = {"artifactId": "a", "parts": list(parts)}
    return {"artifactUpdate": {"taskId": ID, "contextId": ID, "artifact": artifact}}


def event(data: dict[str, Any], message: str | None = None, output: Any = None) -> TodoEvent:
    outcome = None if output is None else Outcome("completed", output=output)
    return TodoEvent(ID, 1, "task_artifact", data, message, outcome=outcome)


async def test_what_is_small_is_left_alone(objects: Any) -> None:
    small = event(update({"text": "x" * LIMIT}, {"data": {"parts": [{"raw": "no part"}]}}), "x" * LIMIT)
    retry = event({"retry": {"failures": 1}})
    assert await artifacts(objects).offload([small, retry]) == [small, retry]
    assert objects.files == {}


async def test_files_and_large_parts_leave_the_row(objects: Any) -> None:
    pdf = b"%PDF \x00\xff"
    parts = [
        {
            "raw": base64.b64encode(pdf).decode(),
            "filename": "a.pdf",
            "mediaType": "application/pdf",
            "metadata": {"page": 1.0},
        },
        {"text": "ü" * LIMIT},
        {"data": {"rows": ["x" * LIMIT]}, "mediaType": "not a type\r\n"},
        {"text": "stays"},
        {"url": "https://elsewhere.example/x"},
    ]
    store = artifacts(objects)
    output = {"artifacts": [{"artifactId": "a", "parts": parts}], "text": "ü" * LIMIT}
    (sent,) = await store.offload([event(update(*parts), "ü" * LIMIT, output)])
    new = sent.event_data["artifactUpdate"]["artifact"]["parts"]
    assert new[3:] == parts[3:]
    assert new[0]["filename"] == "a.pdf"
    assert new[0]["metadata"]["page"] == 1.0
    place = new[0]["metadata"]["storage"]
    assert (place["bucket"], place["size"], place["kind"]) == ("results", len(pdf), "raw")
    assert place["path"] == f"{ID}/{place['sha256']}"
    assert objects.files["results", place["path"]] == (pdf, "application/pdf")
    assert {kind for _, kind in objects.files.values()} == {
        "application/pdf",
        "text/plain",
        "application/json",
    }
    assert objects.puts == 3, "what the event and the result share is stored once"
    assert sent.message == "ü" * 1000 + "…"
    assert len(json.dumps(dict(sent.event_data))) < LIMIT
    # What is stored can still be read as an A2A event.
    assert decode(sent.event_data) is not None

    assert sent.outcome is not None
    stored = sent.outcome.output
    assert stored["text"] == "ü" * 1000 + "…"
    back = await Reader(objects, ID).whole(stored)
    assert back["text"] == output["text"]
    assert [
        {k: v for k, v in part.items() if k != "mediaType"} for part in back["artifacts"][0]["parts"]
    ] == [{k: v for k, v in part.items() if k != "mediaType"} for part in parts]
    assert "textPart" in stored, "the row's own output is not changed by reading it"
    # Again, as after a lost answer, by another worker: nothing new.
    await artifacts(objects).offload([event(update(*parts))])
    assert len(objects.files) == 3


async def test_many_parts_that_are_too_large_together_leave_the_row(objects: Any) -> None:
    parts = [{"text": f"{n}" * 5_000} for n in range(4)] + [{"text": "tiny"}]
    output = {"artifacts": [{"artifactId": "a", "parts": parts}], "text": "x"}
    (sent,) = await artifacts(objects).offload([event({"statusUpdate": {}}, output=output)])
    assert sent.outcome is not None
    assert ["url" in part for part in sent.outcome.output["artifacts"][0]["parts"]] == [True] * 4 + [False]
    assert await Reader(objects, ID).whole(sent.outcome.output) == {
        **output,
        "artifacts": [
            {"artifactId": "a", "parts": [*({**p, "mediaType": "text/plain"} for p in parts[:4]), parts[4]]}
        ],
    }


async def test_only_a_tasks_own_files_are_read_by_their_place(objects: Any) -> None:
    await objects.put("secret", "other/x", b"secret", "text/plain")
    await objects.put("results", f"{ID}/x", b"changed", "text/plain")
    reader = Reader(objects, ID)
    for path in ("other/x", f"{ID}/../other/x"):
        with pytest.raises(SupabaseError, match="no URL to read it by"):
            await reader.content({"metadata": {"storage": {"bucket": "secret", "path": path}}})
    place = {"bucket": "results", "path": f"{ID}/x", "sha256": "0" * 64}
    with pytest.raises(SupabaseError, match="its hash differs"):
        await reader.content({"metadata": {"storage": place}})


def test_input_files_become_parts() -> None:
    files = [
        {"url": "https://example.com/a.pdf", "filename": "a.pdf", "mediaType": "application/pdf"},
        {"raw": base64.b64encode(b"\x00").decode()},
        {"bucket": "b", "path": "p/q"},
    ]
    message = request_of(make_todo(input_data={"n": 1, "files": files})).message
    text, url, raw, stored, data = message.parts[0], *message.parts[2:], message.parts[1]
    assert (text.text, url.url, url.filename) == ("hello", "https://example.com/a.pdf", "a.pdf")
    assert raw.raw == b"\x00"
    assert stored.metadata["storage"]["path"] == "p/q"
    assert list(data.data.struct_value.fields) == ["n"]
    # A user's own list of the same name stays what it is.
    for own in (
        ["a.txt"],
        [{"path": "x"}],
        [{"url": "u", "raw": ""}],
        [*files, "x"],
        [{"raw": "?"}],
        "x",
        [],
    ):
        assert files_of({"files": own}) == []
    assert len(request_of(make_todo(input_data={"files": files})).message.parts) == 4


@pytest.mark.parametrize(
    ("owner", "bucket", "path", "allowed"),
    [
        (None, "opened", "x", True),
        (None, "opened", "a/../../results/ann/x", False),
        (None, "results", "ann/x", False),
        (None, "", "x", False),
        ("ann", "results", "ann/x", True),
        ("ann", "results", "bob/x", False),
        ("ann", "results", "ann/../bob/x", False),
        ("ann", "other", "ann/x", False),
    ],
)
async def test_a_task_reads_its_owners_files_or_those_opened_to_everybody(
    objects: Any, owner: str | None, bucket: str, path: str, allowed: bool
) -> None:
    await objects.put(bucket, path, b"x", "text/plain")
    todo = make_todo(owner_id=owner, input_data={"files": [{"bucket": bucket, "path": path}]})
    request = request_of(todo)
    sign = FileSigner(objects, "results", url_life=60, ownerless_buckets=["opened", "also", ""])
    if not allowed:
        with pytest.raises(PermanentFailure, match="may not read"):
            await sign(todo, request)
        return
    await sign(todo, request)
    assert request.message.parts[1].url.startswith(f"https://storage.example/{bucket}/{path}")


async def test_a_file_that_is_not_there_fails_the_task(objects: Any) -> None:
    todo = make_todo(input_data={"files": [{"bucket": "b", "path": "x"}]})
    with pytest.raises(PermanentFailure, match="is not there"):
        await FileSigner(objects, "", url_life=60, ownerless_buckets=["b"])(todo, request_of(todo))
