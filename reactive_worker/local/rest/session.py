"""Connections of the REST gateway, and one transaction per request on them.

psycopg opens the connection; the requests then speak libpq's pipeline mode through psycopg's `pq` layer.
All statements of a request leave in one packet and are one transaction up to the sync that ends them, so
a request costs one round trip instead of four, and a third of the processor time of the cursor interface.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from reactive_worker.local.rest.errors import ApiError, DatabaseError

#: Most prepared statements a connection keeps; each is a plan in the server's memory.
PREPARED_LIMIT = 200
#: Characters of a statement that is prepared. A longer one is a list of one client's own making: it will
#: hardly come again, and its plan would take megabytes of the server's memory.
LONGEST_PREPARED = 10_000
#: Seconds a request waits for a free connection before it is answered with 504.
ACQUIRE_TIMEOUT = 10.0
#: Seconds to establish a connection.
CONNECT_TIMEOUT = 10

_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)

Row = tuple[bytes | None, ...]


@dataclass(frozen=True)
class Command:
    """One statement with its parameters, as texts; ``$1`` is the first."""

    sql: str
    params: tuple[str | None, ...] = ()


class Session:
    """One connection in pipeline mode. Not for concurrent use: the pool hands it to one request at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._prepared: OrderedDict[str, bytes] = OrderedDict()
        self._counter = 0
        self._ready = asyncio.Event()
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._socket = self._pg.socket
        self._loop.add_reader(self._socket, self._ready.set)

    @classmethod
    async def connect(cls, dsn: str) -> Session:
        """Connect.

        Raises
        ------
        DatabaseError
            PostgreSQL is not there, or refuses the connection.
        """
        try:
            connection = await psycopg.AsyncConnection.connect(
                dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT,
                application_name="reactive-worker REST",
            )
        except psycopg.OperationalError as error:
            raise DatabaseError("", str(error).strip()) from error
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
        self._socket = -1
        self._pg.finish()

    @property
    def usable(self) -> bool:
        """False when the server has closed the connection meanwhile."""
        try:
            # Reads nothing when nothing came. A server that ends says so first, and only the next look finds
            # the end itself: better here than in the middle of a request.
            self._pg.consume_input()
            self._pg.consume_input()
        except psycopg.OperationalError:
            return False
        return self.open

    @property
    def open(self) -> bool:
        """False when the connection is known to be over."""
        return self._pg.status == pq.ConnStatus.OK

    async def run(self, commands: Sequence[Command], check: Callable[[Row], None] | None = None) -> list[Row]:
        """Run commands as one transaction and return the rows of the last one.

        Parameters
        ----------
        commands:
            The statements, in order.
        check:
            Called with the last command's first row before the commit; raises to roll back.

        Raises
        ------
        DatabaseError
            A statement, or the commit, was refused; nothing of the transaction stays.
        """
        return (await self.run_several(commands, 1, check))[0]

    async def run_several(
        self, commands: Sequence[Command], wanted: int, check: Callable[[Row], None] | None = None
    ) -> list[list[Row]]:
        """Run commands as one transaction and return the rows of the last ones.

        Parameters
        ----------
        wanted:
            Of how many commands.
        check:
            Called with the first row of the first of these before the commit; raises to roll back.

        Raises
        ------
        DatabaseError
            A statement, or the commit, was refused; nothing of the transaction stays.
        """
        try:
            if check is None:
                # Without BEGIN everything up to the sync is one transaction, committed by the sync.
                return await self._exchange(commands, wanted)
            rows = await self._exchange([Command("begin"), *commands], wanted)
            try:
                check(rows[0][0])
            except BaseException:
                await self._exchange([Command("rollback")])
                raise
            await self._exchange([Command("commit")])
            return rows
        except DatabaseError:
            if self._pg.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
                await self._exchange([Command("rollback")])
            raise
        except asyncio.CancelledError:
            # Half of an exchange is under way, and nobody will read the rest.
            self.close()
            raise

    async def _exchange(self, commands: Sequence[Command], wanted: int = 1) -> list[list[Row]]:
        # What each expected result belongs to: the statement it prepares, or None.
        sent: list[str | None] = []
        try:
            for command in commands:
                self._send(command, sent)
            self._pg.pipeline_sync()
            while self._pg.flush():
                await self._writable()
            results, error = await self._results()
        except psycopg.OperationalError as failure:
            self.close()
            raise DatabaseError("", str(failure).strip()) from failure
        if error is not None:
            # What came after the failed statement was skipped: it has not been prepared.
            for sql in sent[len(results) :]:
                if sql is not None:
                    self._prepared.pop(sql, None)
            raise error
        executed = [result for result, sql in zip(results, sent, strict=True) if sql is None]
        return [
            [
                tuple(each.get_value(row, column) for column in range(each.nfields))
                for row in range(each.ntuples)
            ]
            for each in executed[-wanted:]
        ]

    def _send(self, command: Command, sent: list[str | None]) -> None:
        """Queue one command, and in `sent` what results it will have."""
        values = [None if value is None else value.encode() for value in command.params]
        name = self._prepared.get(command.sql)
        if name is not None:
            self._prepared.move_to_end(command.sql)
            self._pg.send_query_prepared(name, values)
            sent.append(None)
            return
        if len(command.sql) > LONGEST_PREPARED:
            self._pg.send_query_params(command.sql.encode(), values)
            sent.append(None)
            return
        self._counter += 1
        name = b"rw%d" % self._counter
        if len(self._prepared) >= PREPARED_LIMIT:
            _, oldest = self._prepared.popitem(last=False)
            self._pg.send_query_params(b"deallocate " + oldest, [])
            sent.append(None)
        self._pg.send_prepare(name, command.sql.encode())
        self._pg.send_query_prepared(name, values)
        sent += (command.sql, None)
        self._prepared[command.sql] = name

    async def _results(self) -> tuple[list[pq.abc.PGresult], DatabaseError | None]:
        """Read up to the sync: the results before the first error, and that error."""
        results: list[pq.abc.PGresult] = []
        error: DatabaseError | None = None
        while True:
            while self._pg.is_busy():
                self._ready.clear()
                await self._ready.wait()
                self._pg.consume_input()
            result = self._pg.get_result()
            if result is None:
                if self._pg.status == pq.ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection is lost")
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results, error
            if result.status in _FAILED:
                error = error or _database_error(result)
                if self._pg.status == pq.ConnStatus.BAD:
                    self.close()
                    return results, error
            elif error is None:
                results.append(result)

    async def _writable(self) -> None:
        done = asyncio.Event()
        self._loop.add_writer(self._socket, done.set)
        try:
            # The server may stop reading until we read what it has sent.
            reading = asyncio.ensure_future(self._ready.wait())
            writing = asyncio.ensure_future(done.wait())
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, writing):
                task.cancel()
            if self._ready.is_set():
                self._ready.clear()
                self._pg.consume_input()
        finally:
            self._loop.remove_writer(self._socket)


def _database_error(result: pq.abc.PGresult) -> DatabaseError:
    def part(field: pq.DiagnosticField) -> str | None:
        value = result.error_field(field)
        return value.decode(errors="replace") if value is not None else None

    return DatabaseError(
        part(pq.DiagnosticField.SQLSTATE) or "",
        part(pq.DiagnosticField.MESSAGE_PRIMARY) or result.get_error_message(),
        part(pq.DiagnosticField.MESSAGE_DETAIL),
        part(pq.DiagnosticField.MESSAGE_HINT),
    )


class SessionPool:
    """A bounded set of sessions, opened when needed.

    Parameters
    ----------
    dsn:
        Connection string of the role `authenticator`.
    size:
        Most connections at a time; PostgREST's default is 10.
    """

    def __init__(self, dsn: str, size: int = 10) -> None:
        self._dsn = dsn
        self._free: list[Session] = []
        self._slots = asyncio.Semaphore(size)
        self._closed = False

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """Use a session exclusively.

        Raises
        ------
        ApiError
            ``PGRST003``: none became free in time; ``PGRST000``: PostgreSQL is not there.
        """
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT):
                await self._slots.acquire()
        except TimeoutError:
            raise ApiError(504, "PGRST003", "Timed out acquiring connection from connection pool.") from None
        session: Session | None = None
        try:
            session = await self._take()
            yield session
        finally:
            if session is not None:
                if self._closed or not session.open:
                    session.close()
                else:
                    self._free.append(session)
            self._slots.release()

    async def _take(self) -> Session:
        while self._free:
            # The one used last: its plans are warm, and those not needed stay idle.
            session = self._free.pop()
            if session.usable:
                return session
            session.close()
        try:
            return await Session.connect(self._dsn)
        except DatabaseError as error:
            raise ApiError(
                503, "PGRST000", "Database connection error. Retrying the connection.", error.message
            ) from error

    def close(self) -> None:
        """Close all sessions; those in use when they are given back."""
        self._closed = True
        while self._free:
            self._free.pop().close()
