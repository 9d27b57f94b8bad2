"""Who may do what: each API role over a plain connection, bound by grants and row level security."""

from __future__ import annotations

import uuid

import psycopg

from reactive_worker.local.migrations import migrate
from reactive_worker.local.project import find_project
from reactive_worker.testing.database import Database
from tests.integration.sql.calling import Caller, Refused, result

TABLES = ("todolist", "events", "workers", "worker_mailbox", "steering")

ANYBODY = {"reactive_worker_schema_version"}
USERS = ANYBODY | {
    "reactive_worker_now",
    "reactive_worker_uuid",
    "submit_todos",
    "cancel_todo",
    "retry_todo",
    "answer_todo",
    "steer_todo",
    "tail_events",
}
#: Run with their owner's rights, so that a worker needs none on the tables.
WORKING = {
    "register_worker",
    "heartbeat_worker",
    "unregister_worker",
    "touch_probe",
    "sweep_todos",
    "reclaim_todos",
    "prune_todos",
    "claim_todos",
    "append_events",
    "finish_todos",
    "release_todos",
    "read_steering",
    "reactive_worker_diagnose",
}
WORKERS = ANYBODY | WORKING | {"push_ways", "reactive_worker_rows"}
EVERYTHING = USERS | WORKERS | {"set_worker_state", "list_workers", "todo_stats", "todo_timings"}
#: Of tasks, the columns a sweep returns.
WORKER_COLUMNS = {
    "id",
    "agent_type",
    "agent_status",
    "priority",
    "attempt",
    "available_at",
    "created_at",
    "owner_id",
    "context_id",
}

CLIENT_COLUMNS = {
    "agent_type",
    "prompt",
    "input_data",
    "priority",
    "available_at",
    "max_failures",
    "timeout_seconds",
    "context_id",
    "idempotency_key",
    "owner_id",
}

FUNCTIONS = """
select p.oid, p.proname, p.proconfig, p.prosecdef, n.nspname
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'reactive_worker_private')
"""


async def sign_in(database: Database, user: str | None = None) -> tuple[Caller, str]:
    """A session of a signed-in user."""
    user = user or str(uuid.uuid4())
    return Caller(await database.connect("authenticated", {"sub": user})), user


async def test_every_function_is_granted_by_name_and_to_nobody_else(service: Caller) -> None:
    for role, wanted in (
        ("anon", ANYBODY),
        ("authenticated", USERS),
        ("reactive_worker", WORKERS),
        ("service_role", EVERYTHING),
    ):
        rows = await service.rows(
            f"select proname from ({FUNCTIONS}) f"
            " where nspname = 'public' and has_function_privilege(%s, oid, 'execute')",
            role,
        )
        assert {row["proname"] for row in rows} == wanted, role
    rows = await service.rows(FUNCTIONS)
    assert {row["proname"] for row in rows if row["nspname"] == "public"} == EVERYTHING
    for role in ("anon", "reactive_worker"):
        inner = await service.rows(
            f"select proname from ({FUNCTIONS}) f"
            " where nspname <> 'public' and has_function_privilege(%s, oid, 'execute')",
            role,
        )
        assert inner == [], role
    inner = await service.rows(
        f"select proname from ({FUNCTIONS}) f where nspname <> 'public' and prosecdef"
        " and has_function_privilege('authenticated', oid, 'execute')"
    )
    assert {row["proname"] for row in inner} == {
        "cancel_todo",
        "retry_todo",
        "answer_todo",
        "steer_todo",
        # They read the limits, and tell what is wrong with what they are given.
        "todo_problem",
        "message_problem",
    }


async def test_no_function_trusts_the_search_path(service: Caller) -> None:
    for row in await service.rows(FUNCTIONS):
        assert 'search_path=""' in (row["proconfig"] or []), row["proname"]
        if row["prosecdef"]:
            assert row["nspname"] == "reactive_worker_private" or row["proname"] in WORKING, row["proname"]


async def test_every_table_is_closed_by_default(service: Caller) -> None:
    rows = await service.rows(
        "select relname, relrowsecurity from pg_class where oid = any(%s::regclass[])", list(TABLES)
    )
    assert {row["relname"] for row in rows if row["relrowsecurity"]} == set(TABLES)
    for role, wanted in (
        ("anon", set()),
        ("authenticated", {("todolist", "select"), ("events", "select"), ("steering", "select")}),
        ("reactive_worker", {("events", "select"), ("worker_mailbox", "select")}),
        (
            "service_role",
            {(table, verb) for table in TABLES for verb in ("select", "insert", "update", "delete")},
        ),
    ):
        granted = {
            (table, verb)
            for table in TABLES
            for verb in ("select", "insert", "update", "delete", "truncate")
            if (await service.rows("select has_table_privilege(%s, %s, %s) as yes", role, table, verb))[0][
                "yes"
            ]
        }
        assert granted - {(table, "truncate") for table in TABLES if role == "service_role"} == wanted, role
    columns = await service.rows(
        "select attname as name, relname as table from pg_attribute join pg_class c on c.oid = attrelid"
        " where attnum > 0 and c.oid = any(%s::regclass[])"
        " and (has_column_privilege('authenticated', c.oid, attnum, 'insert')"
        " or has_column_privilege('authenticated', c.oid, attnum, 'update'))",
        list(TABLES),
    )
    assert {(row["table"], row["name"]) for row in columns} == {("todolist", name) for name in CLIENT_COLUMNS}
    columns = await service.rows(
        "select attname as name, has_column_privilege('reactive_worker', c.oid, attnum, 'select') as read,"
        " has_column_privilege('reactive_worker', c.oid, attnum, 'insert')"
        " or has_column_privilege('reactive_worker', c.oid, attnum, 'update') as write"
        " from pg_attribute join pg_class c on c.oid = attrelid"
        " where attnum > 0 and c.oid = 'todolist'::regclass"
    )
    assert {row["name"] for row in columns if row["read"]} == WORKER_COLUMNS
    assert not any(row["write"] for row in columns)


async def test_anon_gets_nothing(database: Database, service: Caller) -> None:
    id = await service.submit()
    anon = Caller(await database.connect("anon"))
    assert await anon.call("reactive_worker_schema_version") == 2
    for statement in (
        *(f"select 1 from {table}" for table in TABLES),
        "insert into todolist (agent_type, prompt) values ('echo', 'x')",
        "select submit_todos('[]')",
        f"select cancel_todo('{id}')",
        "select todo_stats()",
        f"select reactive_worker_private.cancel_todo('{id}', null)",
    ):
        with Refused("42501"):
            await anon.rows(statement)


async def test_users_see_their_own_tasks_and_events_only(database: Database, service: Caller) -> None:
    (ann, ann_id), (bob, _) = await sign_in(database), await sign_in(database)
    id = await ann.submit()
    await service.submit()  # nobody's: made by a backend
    worker = await service.register()
    [run] = await service.claim(worker, id)
    await service.finish(worker, result(run))
    assert [str(row["owner_id"]) for row in await ann.rows("select owner_id from todolist")] == [ann_id]
    assert await ann.log(id) == ["task_started", "task_completed"]
    assert await bob.rows("select 1 from todolist") == []
    assert await bob.rows("select 1 from events") == []
    assert len(await service.rows("select 1 from todolist")) == 2


async def test_users_act_on_their_own_tasks_only(database: Database, service: Caller) -> None:
    (ann, _), (bob, _) = await sign_in(database), await sign_in(database)
    id = await ann.submit()
    message = {"parts": [{"text": "hi"}]}
    for function, arguments in (
        ("cancel_todo", {}),
        ("retry_todo", {}),
        ("answer_todo", {"p_message": message}),
    ):
        with Refused("PT404", f"task {id} not found"):
            await bob.call(function, p_id=id, **arguments)
    assert (await ann.call("cancel_todo", p_id=id))["agent_status"] == "cancelled"
    assert (await ann.call("retry_todo", p_id=id))["agent_status"] == "pending"
    worker = await service.register()
    [run] = await service.claim(worker, id)
    await service.finish(worker, result(run, "input_required"))
    assert (await ann.call("answer_todo", p_id=id, p_message=message))["agent_status"] == "pending"
    kinds = ["task_cancelled", "task_retried", "task_started", "task_input_required", "message_received"]
    assert await ann.log(id) == kinds


async def test_users_insert_the_columns_a_client_may_choose(database: Database) -> None:
    ann, ann_id = await sign_in(database)
    [row] = await ann.rows(
        "insert into todolist (agent_type, prompt, input_data, priority, available_at, max_failures,"
        " timeout_seconds, context_id, idempotency_key)"
        " values ('echo', 'x', '{}', 1, now(), 2, 3, 'c', 'k') returning *"
    )
    assert (str(row["owner_id"]), row["agent_status"]) == (ann_id, "pending")
    for column, value in (
        ("id", "gen_random_uuid()"),
        ("agent_status", "'completed'"),
        ("agent_output", "'{}'"),
        ("attempt", "7"),
        ("failures", "7"),
        ("worker_id", "gen_random_uuid()"),
        ("created_at", "now()"),
        ("cancel_requested_at", "now()"),
        ("task_state", "'x'"),
        ("error", "'{}'"),
    ):
        with Refused("42501", "permission denied for table todolist"):
            await ann.rows(
                f"insert into todolist (agent_type, prompt, {column}) values ('echo', 'x', {value})"
            )
    with Refused("42501", "row-level security"):
        await ann.rows(
            "insert into todolist (agent_type, prompt, owner_id) values ('echo', 'x', %s)", str(uuid.uuid4())
        )


async def test_users_choose_no_ids_and_their_batches_keep_their_order(database: Database) -> None:
    """Whoever took the id of a deleted task would open what others keep by it: threads, sessions, files."""
    ann, ann_id = await sign_in(database)
    for column, text in (("id", "id is made by the database"), ("owner_id", "owner_id is who is signed in")):
        for value in (str(uuid.uuid4()), ann_id):
            with Refused("22023", f"row 1: {text}"):
                await ann.call("submit_todos", p_rows=[{"agent_type": "a", "prompt": "x", column: value}])
    keys = ("z", None, "a", "z", None, "m")
    rows = [{"agent_type": "a", "prompt": f"{n}", "idempotency_key": key} for n, key in enumerate(keys)]
    answer = await ann.call("submit_todos", p_rows=rows)
    assert [row["created"] for row in answer] == [True, True, True, False, True, True]
    assert answer[0]["id"] == answer[3]["id"]
    prompts = {str(row["id"]): row["prompt"] for row in await ann.rows("select id, prompt from todolist")}
    assert [prompts[row["id"]] for row in answer] == ["0", "1", "2", "0", "4", "5"]
    again = await ann.call("submit_todos", p_rows=rows[:1] + rows[2:3])
    assert again == [{"id": answer[0]["id"], "created": False}, {"id": answer[2]["id"], "created": False}]
    assert await ann.call("submit_todos", p_rows=[]) == []


async def test_a_back_end_says_whose_task_it_is(database: Database, service: Caller) -> None:
    ann, ann_id = await sign_in(database)
    bob, _ = await sign_in(database)
    row = {"agent_type": "a", "prompt": "x", "idempotency_key": "k", "owner_id": ann_id}
    [first] = await service.call("submit_todos", p_rows=[row])
    assert str((await service.todo(first["id"]))["owner_id"]) == ann_id
    assert [str(seen["id"]) for seen in await ann.rows("select id from todolist")] == [first["id"]]
    assert await bob.rows("select id from todolist") == []
    # A key is the owner's: hers by whichever way, and nobody else's.
    own = {"agent_type": "a", "prompt": "x", "idempotency_key": "k"}
    assert await service.call("submit_todos", p_rows=[row]) == [{"id": first["id"], "created": False}]
    assert await ann.call("submit_todos", p_rows=[own]) == [{"id": first["id"], "created": False}]
    mixed = await service.call("submit_todos", p_rows=[own, row])
    assert [made["created"] for made in mixed] == [True, False]


FORBIDDEN = (
    "update todolist set prompt = 'y'",
    "update todolist set agent_status = 'completed'",
    "delete from todolist",
    "truncate todolist cascade",
    "insert into events (todolist_id, event_type, event_data, seq) select id, 'x', '{}', 9 from todolist",
    "update events set message = 'y'",
    "delete from events",
    "select 1 from workers",
    "select 1 from worker_mailbox",
    "insert into worker_mailbox (worker_id) values (gen_random_uuid())",
    "select todo_stats()",
    "select list_workers()",
    "select sweep_todos(gen_random_uuid(), '{echo}', 1)",
    "select finish_todos(gen_random_uuid(), '[]')",
    "select reactive_worker_private.put_back('{}', 'lost')",
    "select reactive_worker_private.lock_todo(gen_random_uuid())",
)


async def test_users_write_nothing_else(database: Database) -> None:
    ann, _ = await sign_in(database)
    await ann.submit()
    for statement in FORBIDDEN:
        with Refused("42501", "permission denied"):
            await ann.rows(statement)


async def test_keys_belong_to_their_owner(database: Database, service: Caller) -> None:
    (ann, _), (bob, _) = await sign_in(database), await sign_in(database)
    ids = [await caller.submit(idempotency_key="k") for caller in (ann, bob, service)]
    assert len(set(ids)) == 3
    assert [await caller.submit(idempotency_key="k") for caller in (ann, bob, service)] == ids


async def test_the_owner_of_a_hosted_project_is_no_superuser(database: Database) -> None:
    """The migrations were applied by `postgres`: what it may do, a hosted project's owner may do."""
    owner = Caller(await database.connect())
    [row] = await owner.rows("select current_user, rolsuper from pg_roles where rolname = current_user")
    assert row == {"current_user": "postgres", "rolsuper": False}
    owners = await owner.rows(
        "select distinct relowner::regrole::text as owner from pg_class where oid = any(%s::regclass[])",
        list(TABLES),
    )
    assert owners == [{"owner": "postgres"}]


async def test_a_policy_of_ones_own_opens_events_with_their_tasks(
    database: Database, service: Caller
) -> None:
    owner = Caller(await database.connect())
    await owner.rows("create policy team on todolist for select to authenticated using (agent_type = 'echo')")
    run = await service.running()
    ann, _ = await sign_in(database)
    assert await ann.log(run["id"]) == ["task_started"]
    assert (await ann.call("cancel_todo", p_id=run["id"]))["cancel_requested_at"] is not None


def test_old_projects_that_grant_everything_end_up_with_the_same_grants(database: Database) -> None:
    """Projects made before mid 2026 grant all on new objects to the API roles; that is taken back."""
    name = f"{database.name}_old"
    acl = (
        "select proname::text as name, proacl::text as acl from pg_proc"
        " where pronamespace in ('public'::regnamespace, 'reactive_worker_private'::regnamespace) union all"
        " select relname::text, relacl::text from pg_class where relname = any(%s) order by 1, 2"
    )
    database.cluster.create_database(name)
    try:
        with psycopg.connect(database.cluster.dsn(name), autocommit=True) as old:
            for what in ("tables", "functions", "sequences"):
                old.execute(
                    f"alter default privileges in schema public grant all on {what}"
                    " to postgres, anon, authenticated, service_role"
                )
        migrate(database.cluster.dsn(name), find_project(), seed=False)
        with psycopg.connect(database.cluster.dsn(name)) as old, psycopg.connect(database.dsn) as new:

            def grants(connection: psycopg.Connection) -> list[tuple[str, set[str]]]:
                rows = connection.execute(acl, [list(TABLES)]).fetchall()
                return [(name, set(text.strip("{}").split(","))) for name, text in rows]

            assert grants(old) == grants(new)
    finally:
        database.cluster.drop_database(name)
