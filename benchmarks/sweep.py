"""What a sweep costs with a million rows waiting, in six shapes: the database's time for each call.

    python benchmarks/sweep.py [--rows 1000000] [--calls 20] [--limit 500]

Needs no Docker: it starts a PostgreSQL of its own. Some 0.6 GB on the disk, and two minutes a shape.
"""

from __future__ import annotations

import argparse
import time
import uuid
from typing import Any

import psycopg

from reactive_worker.local.migrations import migrate
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import find_project

#: Name, columns as expressions of `i`, and whether the sweep is fair between owners.
SHAPES: list[tuple[str, dict[str, str], str | None]] = [
    ("one priority", {}, None),
    ("a priority each", {"priority": "i"}, None),
    ("all scheduled, a priority each", {"priority": "i", "available_at": "now() + interval '1 day'"}, None),
    (
        "600 due below a million scheduled priorities",
        {
            "priority": "case when i > 600 then i else 0 end",
            "available_at": "now() + case when i > 600 then interval '1 day' else interval '-1 hour' end",
        },
        None,
    ),
    ("100,000 owners, fair", {"owner_id": "lpad(to_hex(mod(i, 100000) + 1), 32, '0')::uuid"}, "owner_id"),
    ("the best 200 locked", {}, None),
]


def fill(connection: psycopg.Connection[Any], rows: int, columns: dict[str, str]) -> None:
    """A million rows, without the triggers' cost."""
    columns = {"agent_type": "'echo'", "prompt": "'p'", **columns}
    connection.execute("truncate todolist cascade")
    connection.execute("alter table todolist disable trigger user")
    connection.execute(
        f"insert into todolist ({', '.join(columns)})"
        f" select {', '.join(columns.values())} from generate_series(1, {rows}) i".encode()
    )
    connection.execute("alter table todolist enable trigger user")
    connection.execute("vacuum (analyze) todolist")


def main() -> None:
    """Print one line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    with Cluster() as cluster:
        cluster.create_database("sweeps")
        migrate(cluster.dsn("sweeps"), find_project(), seed=False)
        with psycopg.connect(cluster.dsn("sweeps"), autocommit=True) as connection:
            worker = str(uuid.uuid4())
            connection.execute("select register_worker(%s, 'w', '{echo}', 10, 86400)", [worker])
            print(f"{options.rows:,} rows waiting, {options.calls} sweeps for {options.limit}, in ms")
            for name, columns, fair_by in SHAPES:
                fill(connection, options.rows, columns)
                show(connection, cluster.dsn("sweeps"), worker, name, fair_by, options)


def show(
    connection: psycopg.Connection[Any],
    dsn: str,
    worker: str,
    name: str,
    fair_by: str | None,
    options: argparse.Namespace,
) -> None:
    """Time the calls of one shape."""
    sweep = "select sweep_todos(%s, '{echo}', %s, %s, %s::uuid[])"
    with psycopg.connect(dsn) as holder:
        busy: list[str] = []
        if "locked" in name:
            best = (
                "select id::text from todolist order by priority desc, available_at, id limit 200 for update"
            )
            busy = [row[0] for row in holder.execute(best).fetchall()]
        times: list[float] = []
        found = 0
        # The first one reads the catalogs, and what PostgreSQL has not in memory.
        for _ in range(options.calls + 1):
            began = time.perf_counter()
            row = connection.execute(sweep, [worker, options.limit, fair_by, busy]).fetchone()
            times.append((time.perf_counter() - began) * 1000)
            found = len(row[0]["candidates"]) if row else 0
        holder.rollback()
    times = sorted(times[1:])
    print(f"{name:46} p50 {times[len(times) // 2]:7.1f}  max {times[-1]:7.1f}  ({found} found)", flush=True)


if __name__ == "__main__":
    main()
