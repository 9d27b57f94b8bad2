"""A database of one's own, for one test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import psycopg

from reactive_worker.local.postgres import Cluster


class Database:
    """A migrated, empty database that no other test sees.

    Attributes
    ----------
    name:
        Its name on the server.
    dsn:
        Connection string of the role `postgres`, which owns the tables (RLS does not bind it).
    authenticator_dsn:
        Connection string of the role the REST API connects as.
    admin_dsn:
        Connection string of the superuser.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.dsn = cluster.dsn(name)
        self.authenticator_dsn = cluster.dsn(name, "authenticator")
        self.admin_dsn = cluster.admin_dsn(name)
        self._connections: list[psycopg.AsyncConnection[Any]] = []

    async def connect(
        self, role: str | None = None, claims: Mapping[str, Any] | None = None
    ) -> psycopg.AsyncConnection[Any]:
        """Open a connection in autocommit mode; it is closed when the test ends.

        Parameters
        ----------
        role:
            Role to be, such as ``anon``, ``authenticated`` or ``service_role``; None for the owner.
        claims:
            What a request's token would say: ``{"sub": user_id}`` is what ``auth.uid()`` reads.

        Example
        -------
        >>> user = await database.connect("authenticated", {"sub": str(user_id)})
        >>> await user.execute("select * from todolist")
        """
        connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self._connections.append(connection)
        if claims is not None or role is not None:
            text = json.dumps({"role": role, **(claims or {})})
            await connection.execute("select set_config('request.jwt.claims', %s, false)", [text])
        if role is not None:
            await connection.execute("select set_config('role', %s, false)", [role])
        return connection

    def close(self) -> None:
        """Close every connection that `connect` opened."""
        for connection in self._connections:
            # Not `await connection.close()`: the loop it belongs to has ended when a fixture is torn down.
            connection.pgconn.finish()
        self._connections.clear()
