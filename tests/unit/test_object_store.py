"""What Storage says, in our errors: what passes is tried again, what does not says what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from storage3.exceptions import StorageApiError

from reactive_worker.errors import (
    ConfigurationError,
    DataRefusedError,
    PermissionDeniedError,
    SupabaseError,
    UnreachableError,
    UnreadableAnswerError,
)
from reactive_worker.store.objects import FileMissingError, ObjectStore
from reactive_worker.store.translate import is_retryable


class Refusing:
    """A connection whose storage answers with this error, each time or after some answers."""

    url = "http://supabase.example"

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def storage(self, call: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def store(*answers: Any) -> ObjectStore:
    return ObjectStore(Refusing(*answers))  # type: ignore[arg-type]


def api(status: int, code: str = "x") -> StorageApiError:
    return StorageApiError("says why", code, status)


@pytest.mark.parametrize(
    ("error", "kind", "retried"),
    [
        # Rights may be given, a bucket may be made; what is too large stays so.
        (api(404), FileMissingError, True),
        (api(401), PermissionDeniedError, True),
        (api(403), PermissionDeniedError, True),
        (api(413), DataRefusedError, False),
        (api(415), DataRefusedError, False),
        (ValueError("no JSON"), UnreadableAnswerError, True),
        (KeyError("signedURL"), UnreadableAnswerError, True),
        (api(429), UnreachableError, True),
        (api(503), UnreachableError, True),
        (api(400), SupabaseError, True),
        (httpx.ConnectError("refused"), UnreachableError, True),
        (httpx.ReadTimeout("slow"), UnreachableError, True),
    ],
)
async def test_errors(error: Exception, kind: type[Exception], retried: bool) -> None:
    with pytest.raises(kind, match=r"files/a/b|cannot reach|no JSON") as raised:
        await store(error).sign("files", "a/b", 60)
    assert is_retryable(raised.value) is retried


async def test_storing_what_is_there_is_fine() -> None:
    await store(api(409, "Duplicate")).put("files", "a", b"x", "text/plain")
    with pytest.raises(SupabaseError):
        await store(api(409, "Other")).put("files", "a", b"x", "text/plain")


async def test_the_bucket_is_made_once_and_never_public() -> None:
    await store(api(404), None).ensure_private("b")
    await store(api(404), api(409, "Duplicate")).ensure_private("b")
    await store(SimpleNamespace(public=False)).ensure_private("b")
    with pytest.raises(ConfigurationError, match="'b' is public"):
        await store(SimpleNamespace(public=True)).ensure_private("b")
