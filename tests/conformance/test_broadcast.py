"""Messages with supabase-py: from the database, over HTTP, on private channels, and replayed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import httpx
import pytest
from realtime import AsyncRealtimeChannel, RealtimeHTTPError

from tests.conformance.listening import ERROR, PATIENCE, Clients, Heard
from tests.conformance.target import ADA, BOB, Target


def private(**broadcast: Any) -> Any:
    return {"config": {"private": True, "broadcast": {"ack": True, "self": False, **broadcast}}}


def topic_of(target: Target, user: str) -> str:
    """A user's own topic; the policies let nobody else in."""
    return f"{target.prefix}of_{user}"


def send(target: Target, topic: str, event: str, payload: str, *, private: bool) -> None:
    target.connection.execute("select realtime.send(%s::jsonb, %s, %s, %s)", (payload, event, topic, private))


@pytest.fixture(autouse=True)
async def streaming(clients: Clients, target: Target) -> None:
    """Messages of the database flow: what is sent in the first moments of a Realtime may reach nobody."""
    topic = f"{target.prefix}streaming"
    _, heard = await member(clients, topic)
    async with asyncio.timeout(PATIENCE):
        while heard.queue.empty():
            send(target, topic, "wake", "{}", private=False)
            with contextlib.suppress(TimeoutError):
                heard.put(await asyncio.wait_for(heard.queue.get(), 0.2))


async def member(
    clients: Clients, topic: str, *, key: str | None = None, token: str | None = None, config: Any = None
) -> tuple[AsyncRealtimeChannel, Heard]:
    """A channel that hears the event ``wake``."""
    client = await clients.client(key, token)
    channel, heard = client.channel(topic, config), Heard()
    channel.on_broadcast("wake", heard.put)
    await clients.subscribe(channel, changes=False)
    return channel, heard


async def user_member(
    clients: Clients, user: str, topic: str | None = None, **broadcast: Any
) -> tuple[AsyncRealtimeChannel, Heard]:
    target = clients.target
    topic = topic or topic_of(target, user)
    return await member(
        clients, topic, key=target.anon_key, token=target.user(user), config=private(**broadcast)
    )


async def test_the_database_sends_to_a_public_topic(clients: Clients, target: Target) -> None:
    topic = f"{target.prefix}public"
    _, heard = await member(clients, topic, key=target.anon_key)
    send(target, topic, "wake", '{"n": 1}', private=False)
    message = await heard.next()
    assert (message["event"], message["payload"]["n"]) == ("wake", 1)
    # The row's id is put into the payload, and told as metadata.
    assert message["payload"]["id"] == message["meta"]["id"]


async def test_several_messages_of_a_transaction_come_in_order_and_a_rolled_back_one_never(
    clients: Clients, target: Target
) -> None:
    topic = f"{target.prefix}order"
    _, heard = await member(clients, topic)
    with target.connection.transaction(force_rollback=True):
        send(target, topic, "wake", '{"n": 0}', private=False)
    with target.connection.transaction():
        for n in (1, 2, 3):
            send(target, topic, "wake", f'{{"n": {n}}}', private=False)
    assert [(await heard.next())["payload"]["n"] for _ in range(3)] == [1, 2, 3]


async def test_a_payload_that_is_no_object_is_no_error(clients: Clients, target: Target) -> None:
    topic = f"{target.prefix}odd"
    _, heard = await member(clients, topic)
    send(target, topic, "wake", "[1]", private=False)
    send(target, topic, "wake", '{"id": "mine"}', private=False)
    assert (await heard.next())["payload"] == {"id": "mine"}


async def test_private_and_public_topics_of_one_name_are_two(clients: Clients, target: Target) -> None:
    topic = topic_of(target, ADA)
    _, inside = await user_member(clients, ADA)
    _, outside = await member(clients, topic, key=target.anon_key)
    send(target, topic, "wake", '{"n": 1}', private=True)
    send(target, topic, "wake", '{"n": 2}', private=False)
    assert (await inside.next())["payload"]["n"] == 1
    assert (await outside.next())["payload"]["n"] == 2
    assert inside.queue.empty()


@pytest.mark.parametrize("who", ["another user", "anonymous"])
async def test_a_private_topic_lets_only_its_members_in(clients: Clients, target: Target, who: str) -> None:
    token = target.user(BOB) if who == "another user" else None
    client = await clients.client(target.anon_key, token)
    channel, states = client.channel(topic_of(target, ADA), private()), Heard()
    await channel.subscribe(states.put)
    state, error = await states.next()
    assert state == ERROR
    assert "Unauthorized: You do not have permissions to read from this Channel topic" in str(error)


async def test_members_of_a_private_topic_talk(clients: Clients, target: Target) -> None:
    first, _ = await user_member(clients, ADA)
    _, heard = await user_member(clients, ADA)
    await first.send_broadcast("wake", {"from": "first"})
    assert (await heard.next())["payload"] == {"from": "first"}


async def test_the_service_key_needs_no_policy(clients: Clients, target: Target) -> None:
    channel, _ = await member(clients, topic_of(target, ADA), config=private())
    _, heard = await user_member(clients, ADA)
    await channel.send_broadcast("wake", {"from": "service"})
    assert (await heard.next())["payload"] == {"from": "service"}


async def test_changes_are_broadcast_by_a_trigger(clients: Clients, target: Target) -> None:
    client = await clients.client()
    channel, heard = client.channel(target.name("told"), private()), Heard()
    for event in ("INSERT", "UPDATE", "DELETE"):
        channel.on_broadcast(event, heard.put)
    await clients.subscribe(channel, changes=False)
    target.sql("insert into rwc_told values (1, 'a')")
    target.sql("update rwc_told set body = 'b'")
    target.sql("delete from rwc_told")
    inserted, updated, deleted = [(await heard.next())["payload"] for _ in range(3)]
    assert (inserted["schema"], inserted["table"], inserted["operation"]) == (
        "public",
        target.name("told"),
        "INSERT",
    )
    assert (inserted["record"], inserted["old_record"]) == ({"id": 1, "body": "a"}, None)
    assert (updated["record"], updated["old_record"]) == ({"id": 1, "body": "b"}, {"id": 1, "body": "a"})
    assert (deleted["record"], deleted["old_record"]) == (None, {"id": 1, "body": "b"})


async def test_what_was_missed_is_replayed_oldest_first(clients: Clients, target: Target) -> None:
    topic = topic_of(target, ADA)
    # A client must have been there before, or nothing is kept on a project that was never used.
    await user_member(clients, ADA)
    since = int(time.time() * 1000) - 60_000
    target.connection.execute("delete from realtime.messages where topic = %s", (topic,))
    for n in (1, 2, 3):
        send(target, topic, "wake", f'{{"n": {n}}}', private=True)
    _, heard = await user_member(clients, ADA, replay={"since": since, "limit": 2})
    messages = [await heard.next() for _ in range(2)]
    assert [message["payload"]["n"] for message in messages] == [2, 3]
    assert all(message["meta"]["replayed"] is True for message in messages)
    send(target, topic, "wake", '{"n": 4}', private=True)
    live = await heard.next()
    assert (live["payload"]["n"], live["meta"].get("replayed")) == (4, None)


async def test_public_topics_have_no_replay(clients: Clients, target: Target) -> None:
    client = await clients.client()
    config: Any = {"config": {"broadcast": {"replay": {"since": 1, "limit": 2}}}}
    channel, states = client.channel("no-replay", config), Heard()
    await channel.subscribe(states.put)
    state, error = await states.next()
    assert state == ERROR
    assert "UnableToReplayMessages: Replay is not allowed for public channels" in str(error)


async def test_over_http_to_a_public_topic(clients: Clients, target: Target) -> None:
    topic = f"{target.prefix}http"
    channel, heard = await member(clients, topic)
    await channel.http_send("wake", {"n": 1})
    assert (await heard.next())["payload"] == {"n": 1}


async def test_over_http_to_a_private_topic(clients: Clients, target: Target) -> None:
    channel, _ = await user_member(clients, ADA)
    _, heard = await user_member(clients, ADA)
    await channel.http_send("wake", {"n": 1})
    assert (await heard.next())["payload"] == {"n": 1}
    stranger = (await clients.client(target.anon_key, target.user(BOB))).channel(
        topic_of(target, ADA), private()
    )
    with pytest.raises(RealtimeHTTPError) as caught:
        await stranger.http_send("wake", {"n": 2})
    assert caught.value.status == 403


async def test_many_messages_over_http(clients: Clients, target: Target) -> None:
    topic = f"{target.prefix}batch"
    _, heard = await member(clients, topic)
    headers = {"apikey": target.service_key, "Authorization": f"Bearer {target.service_key}"}
    messages = [{"topic": topic, "event": "wake", "payload": {"n": n}, "private": False} for n in (1, 2)]
    async with httpx.AsyncClient(base_url=f"{target.url}/realtime/v1/api", headers=headers) as client:
        answer = await client.post("/broadcast", json={"messages": messages})
        assert (answer.status_code, answer.content) == (202, b"")
        assert [(await heard.next())["payload"]["n"] for _ in range(2)] == [1, 2]
        answer = await client.post("/broadcast", json={"messages": [{"topic": topic, "payload": {}}]})
        assert answer.status_code == 422
        assert answer.json()["errors"]["messages"][0]["event"] == ["can't be blank"]
        answer = await client.post("/broadcast", content=b"{", headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        answer = await client.post(
            "/broadcast", json={"messages": messages}, headers={"apikey": "x", "Authorization": "Bearer x"}
        )
        assert answer.status_code == 401
        answer = await client.post(
            f"/broadcast/{topic}/events/wake", content=b"x", headers={"Content-Type": "text/plain"}
        )
        assert answer.status_code == 415
