"""The official Python client, async and sync, is content with the REST API."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from postgrest import CountMethod, ReturnMethod
from postgrest.exceptions import APIError
from supabase import AsyncClient, Client, acreate_client, create_client

from tests.integration.local.conftest import Api


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[AsyncClient]:
    """supabase-py, async, with the new kind of secret key."""
    client = await acreate_client(api.gateway.api_url, api.gateway.secret_key)
    yield client
    await client.postgrest.aclose()


async def test_reads(client: AsyncClient) -> None:
    people = client.table("people")
    answer = await people.select("id, name").eq("name", 'Cy, "C"').execute()
    assert answer.data == [{"id": 3, "name": 'Cy, "C"'}]
    answer = (
        await people.select("*", count=CountMethod.exact)
        .order("age", desc=True, nullsfirst=False)
        .limit(1)
        .execute()
    )
    assert (answer.count, answer.data[0]["name"]) == (4, "dora")
    answer = await people.select("id").order("id").range(1, 2).execute()
    assert [row["id"] for row in answer.data] == [2, 3]
    answer = await people.select("*", count=CountMethod.exact, head=True).execute()
    assert (answer.count, answer.data) == (4, [])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda q: q.in_("name", ["Bob", 'Cy, "C"', "(x)"]), [2, 3]),
        (lambda q: q.in_("id", []), []),
        (lambda q: q.is_("age", None), [3]),
        (lambda q: q.not_.is_("age", None), [1, 2, 4]),
        (lambda q: q.or_('age.eq.17,and(age.gt.40,name.ilike.D*),name.eq."Cy, \\"C\\""'), [2, 3, 4]),
        (lambda q: q.contains("tags", ["code"]), [1, 2]),
        (lambda q: q.contains("data", {"lang": {"first": "de"}}), [2]),
        (lambda q: q.contained_by("tags", ["code", "x"]), [2, 4]),
        (lambda q: q.overlaps("tags", ["math"]), [1]),
        (lambda q: q.like("name", "%o%"), [2, 4]),
        (lambda q: q.ilike("name", "a*"), [1]),
        (lambda q: q.match({"age": 36, "mood": "happy"}), [1]),
        (lambda q: q.gt("age", 17).lte("age", 52), [1, 4]),
        (lambda q: q.filter("data->lang->>first", "eq", "en"), [1]),
        (
            lambda q: q.gte("created_at", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).isoformat()),
            [1, 2, 3, 4],
        ),
    ],
)
async def test_filters(client: AsyncClient, build: Any, expected: list[int]) -> None:
    answer = await build(client.table("people").select("id")).order("id").execute()
    assert [row["id"] for row in answer.data] == expected


async def test_one_row(client: AsyncClient) -> None:
    people = client.table("people")
    assert (await people.select("name").eq("id", 1).single().execute()).data == {"name": "Ada"}
    with pytest.raises(APIError) as caught:
        await people.select("name").eq("id", 99).single().execute()
    assert caught.value.code == "PGRST116"
    assert await people.select("name").eq("id", 99).maybe_single().execute() is None
    found = await people.select("name").eq("id", 2).maybe_single().execute()
    assert found is not None
    assert found.data == {"name": "Bob"}


async def test_writes(client: AsyncClient, api: Api) -> None:
    people = client.table("people")
    made = await people.insert({"name": "Eve", "data": {"a": [1]}, "tags": ["x"]}).execute()
    assert made.data[0]["data"] == {"a": [1]}
    made = await people.insert([{"name": "F"}, {"name": "G", "age": 1}], count=CountMethod.exact).execute()
    assert (made.count, [row["age"] for row in made.data]) == (2, [None, 1])
    made = await people.insert([{"age": 1}, {"name": "H"}], default_to_null=False).execute()
    assert sorted(row["name"] for row in made.data) == ["H", "nobody"]
    quiet = await people.insert({"name": "I"}, returning=ReturnMethod.minimal).execute()
    assert quiet.data == []
    merged = await people.upsert({"email": "ada@x", "name": "Ada L."}, on_conflict="email").execute()
    assert merged.data[0]["id"] == 1
    ignored = await people.upsert({"id": 1, "name": "no"}, ignore_duplicates=True).execute()
    assert ignored.data == []
    changed = await people.update({"age": 1}).eq("id", 1).execute()
    assert changed.data[0]["age"] == 1
    gone = await people.delete().gt("id", 3).execute()
    assert len(gone.data) == 7
    assert [row[0] for row in api.rows("select name from people order by id")] == ["Ada L.", "Bob", 'Cy, "C"']


async def test_errors(client: AsyncClient) -> None:
    with pytest.raises(APIError) as caught:
        await client.table("people").insert({"id": 1, "name": "again"}).execute()
    error = caught.value
    assert (error.code, error.details) == ("23505", "Key (id)=(1) already exists.")
    with pytest.raises(APIError) as caught:
        await client.rpc("fail", {"code": "PT409"}).execute()
    assert (caught.value.code, caught.value.message, caught.value.hint) == ("PT409", "no", "try")


async def test_functions(client: AsyncClient) -> None:
    assert (await client.rpc("add", {"a": 1}).execute()).data == 11
    assert (await client.rpc("echo", {"value": {"x": None}}).execute()).data == {"x": None}
    assert (await client.rpc("pairs", {}).execute()).data[1] == {"k": "b", "v": 2}
    with pytest.raises(APIError) as caught:
        # One text, which the client makes of the list, is one element.
        await client.rpc("total", {"numbers": [1, 2]}, get=True).execute()
    assert caught.value.code == "22P02"
    assert (await client.rpc("everyone", {}, count=CountMethod.exact).eq("id", 1).execute()).count == 1
    arguments = {"a": uuid.UUID(int=1), "b": None, "c": 1, "d": [], "e": "", "f": False, "g": [], "h": "ok"}
    assert (await client.rpc("types", arguments).execute()).data["a"] == str(uuid.UUID(int=1))


async def test_a_schema_that_is_not_exposed(client: AsyncClient) -> None:
    with pytest.raises(APIError) as caught:
        await client.schema("hidden").table("people").select("*").execute()
    assert caught.value.code == "PGRST106"


def test_the_sync_client(api: Api) -> None:
    client: Client = create_client(api.gateway.api_url, api.gateway.service_role_key)
    with client.postgrest:
        assert client.table("people").select("name").eq("id", 1).single().execute().data == {"name": "Ada"}
        made = client.table("people").insert({"name": "Eve"}).execute().data
        assert client.table("people").delete().eq("id", made[0]["id"]).execute().data[0]["name"] == "Eve"
        assert client.rpc("numbers", {"n": 2}).execute().data == [1, 2]


async def test_a_wrong_key_is_an_error_with_a_message(api: Api) -> None:
    client = await acreate_client(api.gateway.api_url, "sb_secret_wrong")
    with pytest.raises(APIError, match="Invalid API key"):
        await client.table("people").select("*").execute()
    await client.postgrest.aclose()
