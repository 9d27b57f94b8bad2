"""The fixtures that other tests stand on."""

from __future__ import annotations

import psycopg

from reactive_worker.testing.database import Database


async def test_each_test_gets_a_migrated_database(database: Database) -> None:
    connection = await database.connect()
    cursor = await connection.execute("select count(*) from supabase_migrations.schema_migrations")
    assert await cursor.fetchone() != (0,)


async def test_a_role_is_bound_by_its_grants(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("create table notes (id int, owner_id uuid default auth.uid())")
    await owner.execute("grant insert, select on notes to authenticated")
    user_id = "8a4f4cf5-5a5c-4b0e-8d6a-6d6b1f0f5f10"
    user = await database.connect("authenticated", {"sub": user_id})
    row = await (await user.execute("insert into notes values (1) returning owner_id::text")).fetchone()
    assert row == (user_id,)
    anonymous = await database.connect("anon")
    try:
        await anonymous.execute("select * from notes")
    except psycopg.errors.InsufficientPrivilege:
        pass
    else:
        raise AssertionError("anon could read a table nobody granted it")


def test_the_database_of_a_test_is_its_own(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select to_regclass('notes')").fetchone() == (None,)
