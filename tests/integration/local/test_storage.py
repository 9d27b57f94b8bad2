"""`/storage/v1`, judged by supabase-py: buckets, objects, signed URLs, row level security on all of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, AsyncClientOptions, Client, create_client

from tests.support import query

BINARY = bytes(range(256)) * 40 + b"\r\n--x\r\n"


@pytest.fixture
async def connect(local_supabase: Any) -> AsyncIterator[Any]:
    opened: list[httpx.AsyncClient] = []

    def make(key: str = local_supabase.service_role_key, token: str | None = None) -> AsyncClient:
        opened.append(httpx.AsyncClient())
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return AsyncClient(
            local_supabase.api_url, key, AsyncClientOptions(httpx_client=opened[-1], headers=headers)
        )

    yield make
    for http in opened:
        await http.aclose()


@pytest.fixture
def sync_client(local_supabase: Any) -> Iterator[Client]:
    client = create_client(local_supabase.api_url, local_supabase.service_role_key)
    yield client
    client.postgrest.session.close()
    client.storage._client.close()


async def refused(call: Any, code: str, status: int) -> None:
    with pytest.raises(StorageApiError) as raised:
        await call
    assert (raised.value.code, str(raised.value.status)) == (code, str(status)), raised.value.message


async def test_buckets_and_objects(local_supabase: Any, connect: Any) -> None:
    storage = connect().storage
    await storage.create_bucket("files", options={"public": False})
    await refused(storage.create_bucket("files"), "Duplicate", 409)
    assert [bucket.id for bucket in await storage.list_buckets()] == ["files"]
    assert (await storage.get_bucket("files")).public is False
    await refused(storage.get_bucket("nothing"), "Bucket not found", 404)

    files = storage.from_("files")
    stored = await files.upload("a/b c.bin", BINARY, {"content-type": "application/x-test"})
    assert stored.full_path == "files/a/b c.bin"
    assert await files.download("a/b c.bin") == BINARY
    await refused(files.upload("a/b c.bin", b"x"), "Duplicate", 409)
    await files.upload("a/b c.bin", b"two", {"upsert": "true", "content-type": "text/plain"})
    await files.update("a/b c.bin", b"three", {"content-type": "text/plain"})
    assert await files.download("a/b c.bin") == b"three"
    info = await files.info("a/b c.bin")
    assert (info["size"], info["content_type"]) == (5, "text/plain")
    assert await files.exists("a/b c.bin")
    assert not await files.exists("a/nothing")
    await refused(files.update("a/nothing", b"x"), "not_found", 404)
    await refused(files.download("a/nothing"), "not_found", 404)
    await refused(storage.from_("nothing").upload("x", b"x"), "Bucket not found", 404)
    await refused(files.upload("über.txt", b"x"), "InvalidKey", 400)

    await files.upload("top.txt", b"x")
    await files.upload("a/c.txt", b"x")
    assert [(entry["name"], entry["id"] is None) for entry in await files.list()] == [
        ("a", True),
        ("top.txt", False),
    ]
    listed = await files.list("a", {"sortBy": {"column": "name", "order": "desc"}, "limit": 1})
    assert [entry["name"] for entry in listed] == ["c.txt"]
    assert listed[0]["metadata"]["size"] == 1

    await files.move("a/c.txt", "a/moved.txt")
    await files.copy("a/moved.txt", "b/copied.txt")
    removed = await files.remove(["a/moved.txt", "a/nothing", "b/copied.txt"])
    assert sorted(each["name"] for each in removed) == ["a/moved.txt", "b/copied.txt"]

    await refused(storage.delete_bucket("files"), "InvalidRequest", 409)
    await storage.empty_bucket("files")
    await storage.delete_bucket("files")
    assert await storage.list_buckets() == []


def test_the_synchronous_client(sync_client: Client) -> None:
    sync_client.storage.create_bucket("files")
    sync_client.storage.from_("files").upload("x.bin", BINARY)
    assert sync_client.storage.from_("files").download("x.bin") == BINARY


async def test_signed_and_public_urls(local_supabase: Any, connect: Any) -> None:
    storage = connect().storage
    await storage.create_bucket("files")
    files = storage.from_("files")
    await files.upload("a/b c.txt", b"hello", {"content-type": "text/plain"})
    url = (await files.create_signed_url("a/b c.txt", 60, {"download": "name.txt"}))["signedUrl"]
    plain = (await files.create_signed_url("a/b c.txt", 60))["signedUrl"]
    many = await files.create_signed_urls(["a/b c.txt", "nothing"], 60)
    assert many[1]["error"] is not None
    await refused(files.create_signed_url("nothing", 60), "not_found", 404)
    await files.upload("other.txt", b"other")
    async with httpx.AsyncClient() as http:
        # No key at all: the token is enough, and for this object only.
        answer = await http.get(url)
        assert (answer.content, answer.headers["content-type"]) == (b"hello", "text/plain; charset=utf-8")
        assert "name.txt" in answer.headers["content-disposition"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await http.get(many[0]["signedUrl"])).content == b"hello"
        wrong = await http.get(plain.replace("a/b%20c.txt", "other.txt"))
        assert (wrong.status_code, wrong.json()["error"]) == (400, "InvalidSignature")
        forged = plain.split("?")[0] + "?token=" + local_supabase.keys.mint({"url": "files/a/b c.txt"})
        assert (await http.get(forged)).json()["error"] == "InvalidSignature"
        late = local_supabase.keys.mint({"url": "files/a/b c.txt", "use": "read", "exp": 1})
        assert (await http.get(f"{plain.split('?')[0]}?token={late}")).json()["error"] == "InvalidJWT"
        assert (await http.get(plain.split("?")[0])).json()["error"] == "InvalidJWT"

        public = await files.get_public_url("a/b c.txt")
        assert (await http.get(public)).json()["statusCode"] == "404"
        await storage.update_bucket("files", {"public": True})
        assert (await http.get(public)).content == b"hello"

    signed = await files.create_signed_upload_url("up.txt")
    await files.upload_to_signed_url("up.txt", signed["token"], b"up")
    assert await files.download("up.txt") == b"up"


async def test_policies_decide(local_supabase: Any, connect: Any) -> None:
    service = connect()
    await service.storage.create_bucket(
        "mine", options={"file_size_limit": 10, "allowed_mime_types": ["text/*"]}
    )
    ann, bob = str(uuid.uuid4()), str(uuid.uuid4())
    anon_key = local_supabase.anon_key
    hers = connect(anon_key, local_supabase.keys.mint_user(ann)).storage.from_("mine")
    his = connect(anon_key, local_supabase.keys.mint_user(bob)).storage.from_("mine")
    nobodys = connect(anon_key).storage.from_("mine")
    text = {"content-type": "text/plain"}
    await refused(hers.upload(f"{ann}/x.txt", b"x", text), "Unauthorized", 403)
    # As a project's owner writes them, in a migration.
    for verb, what in (("select", "using"), ("insert", "with check")):
        await query(
            local_supabase.db_url,
            f"create policy {verb}_own on storage.objects for {verb} to authenticated {what}"
            " (bucket_id = 'mine' and (storage.foldername(name))[1] = (select auth.uid()::text))",
        )
    await hers.upload(f"{ann}/x.txt", b"x", text)
    assert await hers.download(f"{ann}/x.txt") == b"x"
    for other in (his, nobodys):
        await refused(other.download(f"{ann}/x.txt"), "not_found", 404)
        await refused(other.create_signed_url(f"{ann}/x.txt", 60), "not_found", 404)
        assert await other.list(ann) == []
    await refused(his.upload(f"{ann}/y.txt", b"y", text), "Unauthorized", 403)
    # No policy for these: nothing is there to be changed.
    await refused(hers.update(f"{ann}/x.txt", b"z", text), "not_found", 404)
    assert await hers.remove([f"{ann}/x.txt"]) == []
    await refused(hers.upload(f"{ann}/big.txt", b"x" * 11, text), "Payload too large", 413)
    await refused(hers.upload(f"{ann}/y.bin", b"x", {"content-type": "image/png"}), "invalid_mime_type", 415)
    async with httpx.AsyncClient() as http:
        base = f"{local_supabase.api_url}/storage/v1"
        keyless = await http.get(f"{base}/object/mine/{ann}/x.txt")
        assert (keyless.status_code, keyless.json()["statusCode"]) == (400, "403")
        headers = {"apikey": local_supabase.service_role_key}
        other = await http.post(f"{base}/object/list-v2/mine", headers=headers, json={})
        assert (other.status_code, other.json()["error"]) == (501, "NotImplemented")
