"""`/storage/v1`, judged by supabase-py: buckets, objects, signed URLs, row level security on all of it."""

from __future__ import annotations

import base64
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
        other = await http.get(f"{base}/render/image/authenticated/mine/x.png?width=10", headers=headers)
        assert (other.status_code, other.json()["error"]) == (501, "NotImplemented")
        signed = await http.post(
            f"{base}/object/sign/mine/{ann}/x.txt",
            headers=headers,
            json={"expiresIn": 60, "transform": {"width": 10}},
        )
        assert (signed.status_code, signed.json()["error"]) == (501, "NotImplemented")
        assert "transform" in signed.json()["message"]


async def test_signed_uploads_are_allowed_by_policies_and_keep_the_owner(
    local_supabase: Any, connect: Any
) -> None:
    service = connect()
    await service.storage.create_bucket("up")
    ann, bob = str(uuid.uuid4()), str(uuid.uuid4())
    hers = connect(local_supabase.anon_key, local_supabase.keys.mint_user(ann)).storage.from_("up")
    his = connect(local_supabase.anon_key, local_supabase.keys.mint_user(bob)).storage.from_("up")
    await refused(hers.create_signed_upload_url(f"{ann}/x.txt"), "Unauthorized", 403)
    await query(
        local_supabase.db_url,
        "create policy own_up on storage.objects for all to authenticated"
        " using (bucket_id = 'up' and (storage.foldername(name))[1] = (select auth.uid()::text))",
    )
    signed = await hers.create_signed_upload_url(f"{ann}/x.txt")
    await refused(his.create_signed_upload_url(f"{ann}/y.txt"), "Unauthorized", 403)
    # The trial left nothing behind.
    assert await query(local_supabase.db_url, "select count(*) from storage.objects") == [{"count": 0}]
    await his.upload_to_signed_url(f"{ann}/x.txt", signed["token"], b"one")
    assert await query(local_supabase.db_url, "select owner_id from storage.objects") == [{"owner_id": ann}]
    await refused(hers.upload_to_signed_url(f"{ann}/x.txt", signed["token"], b"two"), "Duplicate", 409)
    await refused(hers.create_signed_upload_url(f"{ann}/x.txt"), "Duplicate", 409)
    base = f"{local_supabase.api_url}/storage/v1"
    headers = {
        "apikey": local_supabase.anon_key,
        "Authorization": f"Bearer {local_supabase.keys.mint_user(ann)}",
        "x-upsert": "true",
    }
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{base}/object/upload/sign/up/{ann}/x.txt", headers=headers)
    await hers.upload_to_signed_url(f"{ann}/x.txt", answer.json()["token"], b"two")
    assert await hers.download(f"{ann}/x.txt") == b"two"


async def test_metadata_in_a_header(local_supabase: Any, connect: Any) -> None:
    storage = connect().storage
    await storage.create_bucket("files")
    url = f"{local_supabase.api_url}/storage/v1/object/files"
    headers = {"apikey": local_supabase.service_role_key, "Content-Type": "text/plain"}
    async with httpx.AsyncClient(headers=headers) as http:
        said = base64.b64encode(b'{"kind": "note"}').decode()
        await http.post(f"{url}/a.txt", content=b"a", headers={"x-metadata": said})
        # As there: what cannot be read is not told.
        await http.post(f"{url}/b.txt", content=b"b", headers={"x-metadata": "nonsense"})
    assert (await storage.from_("files").info("a.txt"))["metadata"] == {"kind": "note"}
    assert (await storage.from_("files").info("b.txt"))["metadata"] == {}


async def test_sizes_as_words(local_supabase: Any, connect: Any) -> None:
    storage = connect().storage
    await storage.create_bucket("small", options={"file_size_limit": "1KB"})  # type: ignore[typeddict-item]
    assert (await storage.get_bucket("small")).file_size_limit == 1000
    await refused(storage.from_("small").upload("x", b"x" * 1001), "Payload too large", 413)
    for wrong in ("much", "1KiB", "1000"):
        await refused(storage.update_bucket("small", {"file_size_limit": wrong}), "InvalidRequest", 400)  # type: ignore[typeddict-item]
    # No bucket takes more than the project does.
    await storage.create_bucket("large", options={"file_size_limit": "1GB"})  # type: ignore[typeddict-item]
    await refused(storage.from_("large").upload("x", b"x" * (50 * 2**20 + 1)), "Payload too large", 413)


async def test_lists_with_a_cursor(local_supabase: Any, connect: Any) -> None:
    storage = connect().storage
    await storage.create_bucket("files")
    names = ["a/1.txt", "a/2.txt", "b.txt", "c/d/3.txt", "e.txt"]
    for name in names:
        await storage.from_("files").upload(name, b"x")
    url = f"{local_supabase.api_url}/storage/v1/object/list-v2/files"
    async with httpx.AsyncClient(headers={"apikey": local_supabase.service_role_key}) as http:

        async def pages(**options: Any) -> list[tuple[list[str], list[str]]]:
            found: list[tuple[list[str], list[str]]] = []
            while True:
                answer = (await http.post(url, json=options)).json()
                found.append(
                    (
                        [each["name"] for each in answer["folders"]],
                        [each["name"] for each in answer["objects"]],
                    )
                )
                if not answer["hasNext"]:
                    return found
                options["cursor"] = answer["nextCursor"]

        assert await pages() == [([], names)]
        assert await pages(limit=2) == [([], names[:2]), ([], names[2:4]), ([], names[4:])]
        assert await pages(with_delimiter=True, limit=3) == [(["a/", "c/"], ["b.txt"]), ([], ["e.txt"])]
        assert await pages(prefix="a/", with_delimiter=True) == [([], ["a/1.txt", "a/2.txt"])]
        order = {"column": "created_at", "order": "desc"}
        assert await pages(sortBy=order, limit=3) == [([], names[:1:-1]), ([], names[1::-1])]
        wrong = await http.post(url, json={"cursor": "nonsense"})
        assert (wrong.status_code, wrong.json()["error"]) == (400, "InvalidParameter")
