"""What Realtime tells whom: users never hear of others' tasks or events, workers only of what is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from websockets.asyncio.client import connect

from reactive_worker.testing.workers import eventually
from tests.integration.realtime.harness import Client, Frame
from tests.integration.security.people import ANN, BOB, ROLES, tokens
from tests.support import query

TABLES = ("todolist", "events", "worker_mailbox")


class Listener:
    """Somebody who listens to every change there is, as far as the server lets them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def heard(self) -> list[tuple[str, str, Frame]]:
        """(table, kind, row) of every change so far; of a DELETE the old row."""
        changes = [f["payload"]["data"] for f in self.client.frames if f["event"] == "postgres_changes"]
        return [(c["table"], c["type"], c.get("record") or c.get("old_record") or {}) for c in changes]

    def about(self, *ids: str) -> list[tuple[str, str]]:
        """(table, kind) of the changes whose row names one of these ids."""
        return [(table, kind) for table, kind, row in self.heard() if set(ids) & set(map(str, row.values()))]


async def listen(stack: AsyncExitStack, supabase: Any, roles: Sequence[str]) -> dict[str, Listener]:
    found: dict[str, Listener] = {}
    for role in roles:
        apikey, token = tokens(supabase)[role]
        url = supabase.api_url.replace("http://", "ws://")
        socket = await connect(f"{url}/realtime/v1/websocket?apikey={apikey}&vsn=1.0.0")
        stack.push_async_callback(socket.close)
        client = Client(socket, "1.0.0")
        for table in TABLES:
            binding = {"event": "*", "schema": "public", "table": table}
            told = await client.listen(f"realtime:{table}", binding, token=token or None)
            assert told["payload"]["status"] == "ok", told
        found[role] = Listener(client)
    return found


async def test_everybody_hears_what_they_may_see_and_nothing_else(local_supabase: Any) -> None:
    db = local_supabase.db_url
    async with AsyncExitStack() as stack:
        people = await listen(stack, local_supabase, ["anon", "owner", "other", "worker", "service"])
        service = people["service"]

        async def told(*ids: str) -> None:
            """Wait until the service role, which may see everything, has heard of these ids."""
            await eventually(lambda: all(service.about(id) for id in ids), what=f"service hears of {ids}")

        ids: dict[str, str] = {}
        events: dict[str, str] = {}
        for owner in (ANN, BOB):
            [task] = await query(
                db,
                "insert into todolist (agent_type, prompt, owner_id) values ('test', 'secret', %s)"
                " returning id::text",
                owner,
            )
            ids[owner] = task["id"]
            await told(task["id"])
            await query(
                db,
                "update todolist set agent_status = 'in_progress', worker_id = gen_random_uuid()"
                " where id = %s",
                task["id"],
            )
            [event] = await query(
                db,
                "insert into events (todolist_id, event_type, event_data, seq, message)"
                " values (%s, 'task_progress', '{}', 1, 'secret') returning id::text",
                task["id"],
            )
            events[owner] = event["id"]
            await told(event["id"])
        for owner in (ANN, BOB):
            await query(
                db,
                "update todolist set agent_status = 'completed', agent_output = '{\"text\": \"secret\"}'"
                " where id = %s",
                ids[owner],
            )
        await eventually(lambda: service.about(ids[BOB]).count(("todolist", "UPDATE")) == 2)
        # From here on both tasks have ended, and a worker may not see them any more.
        [late] = await query(
            db,
            "insert into events (todolist_id, event_type, event_data, seq) values (%s, 'note', '{}', 2)"
            " returning id::text",
            ids[BOB],
        )
        await told(late["id"])
        [mailbox] = await query(
            db,
            "with w as (insert into workers (id, lease_until) values (gen_random_uuid(), now()) returning id)"
            " insert into worker_mailbox (worker_id) select id from w returning worker_id::text",
        )
        await query(
            db, "update worker_mailbox set probe_at = now() where worker_id = %s", mailbox["worker_id"]
        )
        await eventually(lambda: ("worker_mailbox", "UPDATE") in service.about(mailbox["worker_id"]))
        await query(db, "update events set message = 'changed' where id = any(%s)", list(events.values()))
        await eventually(lambda: ("events", "UPDATE") in service.about(events[BOB]))
        for person in people.values():
            # What was sent before has arrived.
            await person.client.barrier()

        mine = [("todolist", "INSERT"), ("todolist", "UPDATE"), ("events", "INSERT")]
        rest = [("todolist", "UPDATE"), ("events", "UPDATE")]
        for role, own, foreign in (("owner", ANN, BOB), ("other", BOB, ANN)):
            extra = [("events", "INSERT")] if own == BOB else []
            assert sorted(people[role].about(ids[own], events[own])) == sorted(mine + rest + extra)
            assert people[role].about(ids[foreign], events[foreign], mailbox["worker_id"]) == []
        assert people["anon"].about(*ids.values(), *events.values(), mailbox["worker_id"]) == []
        # Workers hear what is open, without its prompt, and the mailboxes.
        worker = people["worker"]
        for owner in (ANN, BOB):
            assert sorted(worker.about(ids[owner], events[owner])) == sorted(mine)
        assert ("worker_mailbox", "UPDATE") in worker.about(mailbox["worker_id"])
        for table, _, row in worker.heard():
            assert table != "todolist" or not {"prompt", "input_data", "agent_output", "error"} & set(row)
        # The rows did hold what nobody else may hear.
        assert any(row.get("prompt") == "secret" for _, _, row in service.heard())

        # Row level security does not bind a DELETE, here as on every Supabase: the key is told, and no more.
        before = {role: len(person.heard()) for role, person in people.items()}
        await query(db, "delete from todolist where id = %s", ids[ANN])
        await eventually(lambda: ("todolist", "DELETE") in service.about(ids[ANN]))
        for role, person in people.items():
            await person.client.barrier()
            for _, kind, row in person.heard()[before[role] :]:
                assert kind == "DELETE"
                assert set(row) <= {"id"}, role


async def test_only_workers_may_join_the_topics_of_hints(local_supabase: Any) -> None:
    url = local_supabase.api_url.replace("http://", "ws://")

    async def join(role: str, topic: str) -> str:
        apikey, token = tokens(local_supabase)[role]
        async with connect(f"{url}/realtime/v1/websocket?apikey={apikey}&vsn=1.0.0") as socket:
            client = Client(socket, "1.0.0")
            reply = await client.join(f"realtime:reactive_worker:{topic}", token=token or None, private=True)
            return str(reply["payload"]["response"].get("reason", reply["payload"]["status"]))

    # A refusal takes 5 s, as on the real server: all at once.
    asked = [(role, topic) for role in ROLES[1:] for topic in ("todolist:test", f"mailbox:{ANN}")]
    for (role, _), said in zip(asked, await asyncio.gather(*(join(*one) for one in asked)), strict=True):
        assert said.startswith("ok" if role in ("worker", "service") else "Unauthorized"), (role, said)


async def test_a_policy_that_is_opened_shows(local_supabase: Any) -> None:
    """The negative control: with a hole in the policies the same ears do hear a stranger's task."""
    async with AsyncExitStack() as stack:
        await query(
            local_supabase.db_url,
            "create policy hole on todolist for select to authenticated using (true)",
        )
        people = await listen(stack, local_supabase, ["other", "service"])
        [task] = await query(
            local_supabase.db_url,
            "insert into todolist (agent_type, prompt, owner_id) values ('test', 'x', %s) returning id::text",
            ANN,
        )
        await eventually(lambda: people["other"].about(task["id"]))
