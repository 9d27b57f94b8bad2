"""Fixtures: a Realtime server on a database with the tables of the recorded traces."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import psycopg
import pytest

from reactive_worker.local.postgres import Cluster
from reactive_worker.local.realtime import Timings
from tests.integration.realtime.harness import Gateway

_numbers = itertools.count(1)

#: The tables the traces were recorded with.
TABLES = """
create type mood as enum ('sad','ok','happy');
create table todolist(id uuid primary key default gen_random_uuid(), agent_type text not null, prompt text,
  input_data jsonb, priority int default 0, created_at timestamptz default now(), big text);
create table types_t(id bigint primary key, i2 int2, i4 int4, i8 int8, num numeric, num2 numeric(12,4),
  f4 float4, f8 float8, b bool, t text, vc varchar(20), ch char(5), j json, jb jsonb, ts timestamp,
  tz timestamptz, d date, tm time, tmz timetz, iv interval, ai int[], at text[], aj jsonb[], by bytea, e mood,
  ae mood[], ip inet, u uuid, r int4range, pt point);
create table full_t(id int primary key, a text, big text, n int);
alter table full_t replica identity full;
create table own_t(id int primary key, owner uuid, v text);
create table rls_full(id int primary key, owner uuid, v text);
alter table rls_full replica identity full;
alter table own_t enable row level security;
alter table rls_full enable row level security;
create policy own on own_t for select to authenticated using (owner = auth.uid());
create policy own on rls_full for select to authenticated using (owner = auth.uid());
create table nogrant_t(id int primary key, v text);
create table colgrant_t(id int primary key, v text, secret text);
create table nopub_t(id int primary key, v text);
create table nopk_t(a int, v text);
create table lat_t(id bigserial primary key, v text, at timestamptz default clock_timestamp());
grant all on todolist, types_t, full_t, own_t, rls_full, nopub_t, nopk_t, lat_t
  to anon, authenticated, service_role;
grant select (id, v) on colgrant_t to authenticated;
create table bc_t(id int, v text);
create function bc_notify() returns trigger language plpgsql as $$
begin
  perform realtime.broadcast_changes('jobs:1', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
  return null;
end
$$;
create trigger bc_notify after insert or update or delete on bc_t for each row execute function bc_notify();
alter publication supabase_realtime add table
  todolist, types_t, full_t, own_t, rls_full, nogrant_t, colgrant_t, nopk_t, lat_t;
"""

#: No delay that a test would have to wait for.
QUICK = Timings(token_refresh_delay=0.2, publication_check=3600, reconnect_first=0.02, reconnect_longest=0.1)


@pytest.fixture(scope="session")
def trace_template(pg_cluster: Cluster) -> str:
    """Name of a database with the traces' tables, to be copied."""
    name = "realtime_template"
    pg_cluster.create_database(name)
    with psycopg.connect(pg_cluster.admin_dsn(name), autocommit=True) as connection:
        # As on hosted projects, where the owner's session finds the tables; the superuser's path has more.
        connection.execute("set search_path = public")
        connection.execute(TABLES)
    return name


@pytest.fixture
def dsn(pg_cluster: Cluster, trace_template: str) -> Generator[str]:
    """Connection string of a superuser for a copy of the template; dropped afterwards, without force."""
    name = f"realtime_{next(_numbers)}"
    pg_cluster.create_database(name, trace_template)
    try:
        yield pg_cluster.admin_dsn(name)
    finally:
        pg_cluster.drop_database(name)


@pytest.fixture
def writer(dsn: str) -> Generator[psycopg.Connection[Any]]:
    """An autocommit connection to the test's database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = public")
        yield connection


MakeGateway = Callable[..., Gateway]


@pytest.fixture
async def make_gateway(dsn: str) -> AsyncGenerator[MakeGateway]:
    """Starts Realtime servers on the test's database."""
    gateways: list[Gateway] = []

    def make(**options: Any) -> Gateway:
        gateways.append(Gateway(dsn, **{"timings": QUICK, **options}).start())
        return gateways[-1]

    yield make
    for gateway in gateways:
        await gateway.disconnect()
        await asyncio.to_thread(gateway.stop)


@pytest.fixture
async def gateway(make_gateway: MakeGateway) -> Gateway:
    """A Realtime server on the test's database, with no long delays."""
    return make_gateway()
