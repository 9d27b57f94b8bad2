"""Who may read and write a private channel: the policies on ``realtime.messages`` decide, and nobody else.

As the real server does it: in a transaction that is rolled back, with the role and claims of the token, and
the topic where `realtime.topic()` finds it, rows put there for the purpose are read, and others written.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg

from reactive_worker.local.realtime.database import AnyConnection, Database
from reactive_worker.local.realtime.tokens import Token

log = logging.getLogger(__name__)

#: Milliseconds a policy may take.
_POLICY_TIMEOUT = "10000"

_IDENTITY = (
    "select set_config('role', %s, true), set_config('realtime.topic', %s, true),"
    " set_config('request.jwt.claims', %s, true), set_config('request.headers', %s, true)"
)
_EXTENSIONS = ("broadcast", "presence")


class AuthorizationError(Exception):
    """The policies could not be asked; the text says why, as Realtime words it."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a member may read, or write."""

    broadcast: bool
    presence: bool

    def __bool__(self) -> bool:
        return self.broadcast or self.presence


EVERYTHING = Rights(True, True)
NOTHING = Rights(False, False)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants something of a private channel, and of which."""

    token: Token
    #: Without prefix.
    topic: str
    #: The client's own headers as JSON: what policies read as ``request.headers``.
    headers: str = "{}"


def client_headers(headers: Mapping[str, str]) -> str:
    """The headers of a request that policies get to see: those that begin with ``x-``, as JSON."""
    kept = {name: value for name, value in headers.items() if name.startswith("x-") and name != "x-api-key"}
    return json.dumps(kept)


class Authorizer:
    """Asks the policies, on a connection of its own.

    Parameters
    ----------
    dsn:
        Connection string of a superuser.

    Example
    -------
    >>> await authorizer.reads(Asker(token, "jobs:1"))
    Rights(broadcast=True, presence=False)
    """

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, name="realtime_connect")

    async def reads(self, asker: Asker) -> Rights:
        """What the SELECT policies let somebody hear.

        Raises
        ------
        AuthorizationError
            The database is down, a policy fails, or there is no partition for today's messages.
        """
        try:
            return await self._database.run(lambda connection: self._reads(connection, asker))
        except psycopg.errors.InsufficientPrivilege:
            # The role may not read the table at all.
            return NOTHING
        except psycopg.Error as error:
            raise _problem(error, asker) from error

    async def _reads(self, connection: AnyConnection, asker: Asker) -> Rights:
        ids = [uuid.uuid4() for _ in _EXTENSIONS]
        async with connection.transaction(force_rollback=True), connection.pipeline():
            if not await self._is_api_role(connection, asker):
                return NOTHING
            await connection.execute(
                "insert into realtime.messages (id, topic, extension)"
                " select i, %s, e from unnest(%s::uuid[], %s::text[]) as probe (i, e)",
                (asker.topic, ids, list(_EXTENSIONS)),
            )
            await self._become(connection, asker)
            cursor = await connection.execute(
                "select id from realtime.messages where topic = %s and id = any (%s)", (asker.topic, ids)
            )
            seen = {row[0] for row in await cursor.fetchall()}
        return Rights(*(found in seen for found in ids))

    async def writes(self, asker: Asker) -> Rights:
        """What the INSERT policies let somebody send.

        Raises
        ------
        AuthorizationError
            As for `reads`.
        """
        try:
            return await self._database.run(lambda connection: self._writes(connection, asker))
        except psycopg.Error as error:
            raise _problem(error, asker) from error

    async def _writes(self, connection: AnyConnection, asker: Asker) -> Rights:
        async with connection.transaction(force_rollback=True):
            if not await self._is_api_role(connection, asker):
                return NOTHING
            await self._become(connection, asker)
            broadcast = await self._may_insert(connection, asker.topic, "broadcast")
            presence = await self._may_insert(connection, asker.topic, "presence")
        return Rights(broadcast, presence)

    async def _may_insert(self, connection: AnyConnection, topic: str, extension: str) -> bool:
        try:
            async with connection.transaction():
                await connection.execute(
                    "insert into realtime.messages (topic, extension) values (%s, %s)", (topic, extension)
                )
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    async def _is_api_role(self, connection: AnyConnection, asker: Asker) -> bool:
        # The connection is a superuser's and could be anybody; a token may be what REST lets it be.
        cursor = await connection.execute(
            "select pg_has_role('authenticator', oid, 'MEMBER') and rolname <> 'authenticator'"
            " from pg_roles where rolname = %s",
            (asker.token.role,),
        )
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def _become(self, connection: AnyConnection, asker: Asker) -> None:
        await connection.execute("select set_config('statement_timeout', %s, true)", (_POLICY_TIMEOUT,))
        claims = json.dumps(asker.token.claims, ensure_ascii=False)
        await connection.execute(_IDENTITY, (asker.token.role, asker.topic, claims, asker.headers))

    async def close(self) -> None:
        """Close the connection."""
        await self._database.close()


def _problem(error: psycopg.Error, asker: Asker) -> AuthorizationError:
    log.warning("the policies on realtime.messages could not be asked about %s: %s", asker.topic, error)
    text = error.diag.message_primary or str(error)
    if isinstance(error, psycopg.errors.QueryCanceled):
        return AuthorizationError(f"QueryCanceled: {text}")
    if isinstance(error, psycopg.errors.CheckViolation) and "no partition" in text:
        return AuthorizationError(
            "MissingPartition: Realtime was unable to find the expected messages partition"
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return AuthorizationError(
            "UnableToConnectToProject: Realtime was unable to connect to the project database"
        )
    return AuthorizationError(f"RlsPolicyError: {text}")


class ChannelRights:
    """What one member may do in its channel: everything, unless the channel is private.

    Parameters
    ----------
    authorizer:
        Asks the policies.
    asker:
        The member, and the topic; None for a public channel.
    """

    def __init__(self, authorizer: Authorizer, asker: Asker | None) -> None:
        self._authorizer = authorizer
        self._asker = asker
        #: What it may hear; as of the join, or of its latest token.
        self.reads = EVERYTHING if asker is None else NOTHING
        self._writes: Rights | None = EVERYTHING if asker is None else None

    async def ask(self, token: Token | None = None) -> bool:
        """Ask what it may hear, with a new token if one is given; whether that is anything at all.

        Raises
        ------
        AuthorizationError
            The policies could not be asked.
        """
        if self._asker is not None:
            if token is not None:
                self._asker = replace(self._asker, token=token)
            self._writes = None
            self.reads = await self._authorizer.reads(self._asker)
        return bool(self.reads)

    async def writes(self) -> Rights:
        """What it may send. The policies are asked once, at the first use, as on the real server.

        Raises
        ------
        AuthorizationError
            The policies could not be asked; the next use asks again.
        """
        if self._writes is None and self._asker is not None:
            self._writes = await self._authorizer.writes(self._asker)
        return self._writes or NOTHING
