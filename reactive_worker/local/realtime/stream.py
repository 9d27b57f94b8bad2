"""A logical replication stream over libpq: PostgreSQL sends each commit the moment it is in the log.

psycopg has no API for the replication protocol, but libpq, which it wraps, speaks it: a connection with
``replication=database`` and COPY in both directions. Streaming is worth the few lines: reading a slot with
SQL functions starts a decoder per call, re-reads the log since the last checkpoint, and costs queries when
idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable, Iterable

import psycopg
from psycopg import conninfo, pq

_XLOG_DATA = struct.Struct("!cQQq")
_KEEPALIVE = struct.Struct("!cQqB")
_STATUS = struct.Struct("!cQQQqB")

#: Seconds from 1970 to 2000, PostgreSQL's epoch.
POSTGRES_EPOCH = 946_684_800

#: A sender about to sleep can miss that the log has grown (seen with PostgreSQL 18, for about one commit in
#: a thousand), and then sleeps on until something else is written: 15 seconds on an idle server. Anything
#: from us wakes it, so it hears from us this often, in seconds: for so long after it sent something, and from
#: then on.
_NUDGE_BUSY, _BUSY_FOR, _NUDGE_IDLE = 0.02, 1.0, 0.25

#: What column values look like in the stream is the sender's session; these are what the rendering expects.
_SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        "timezone=UTC",
        "datestyle=ISO,YMD",
        "intervalstyle=postgres",
        "bytea_output=hex",
        "extra_float_digits=1",
    )
)


class StreamError(Exception):
    """The replication connection failed or was ended by the server."""


class ReplicationStream:
    """One temporary slot and the stream of its changes.

    Parameters
    ----------
    dsn:
        Connection string of the database whose changes are wanted; the role must be a superuser or have
        REPLICATION.
    publication:
        Which tables.
    slot:
        Name of the slot. It is temporary: gone with the connection.
    application_name:
        Shown in ``pg_stat_activity``.

    Example
    -------
    >>> stream = ReplicationStream(dsn, publication="supabase_realtime", slot="one")
    >>> await stream.open()
    >>> for message in await stream.read():
    ...     decode(message)
    """

    def __init__(
        self, dsn: str, *, publication: str, slot: str, application_name: str = "realtime_changes"
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._publication = publication
        self._slot = slot
        self._connection: pq.abc.PGconn | None = None
        self._confirmed = 0
        self._heard = 0.0

    @property
    def _pgconn(self) -> pq.abc.PGconn:
        if self._connection is None:
            raise StreamError("the replication stream is not open")
        return self._connection

    async def open(self) -> None:
        """Connect, create the slot and start streaming. Changes committed after this returns will arrive.

        Raises
        ------
        StreamError
            The database cannot be reached, or refuses.
        """
        # Only connection parameters reach libpq here, so psycopg's own ones need no treatment.
        parameters = conninfo.make_conninfo(
            self._dsn, replication="database", options=_SESSION, application_name=self._application_name
        )
        self._connection = pgconn = pq.PGconn.connect_start(parameters.encode())
        try:
            while (status := pgconn.connect_poll()) != pq.PollingStatus.OK:
                if status == pq.PollingStatus.FAILED:
                    raise StreamError(_error(pgconn))
                await self._ready(writing=status == pq.PollingStatus.WRITING)
            pgconn.nonblocking = 1
            await self._command(
                f"CREATE_REPLICATION_SLOT {self._slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"
            )
            options = f"proto_version '1', publication_names '{self._publication}'"
            await self._command(f"START_REPLICATION SLOT {self._slot} LOGICAL 0/0 ({options})")
        except psycopg.Error as error:
            self.close()
            raise StreamError(str(error)) from error
        except BaseException:
            self.close()
            raise

    async def read(self) -> list[bytes]:
        """Wait for messages and return all that are there.

        Keepalives are answered on the way, so this must be called again soon after it returned.

        Raises
        ------
        StreamError
            The connection is gone.
        """
        pgconn = self._pgconn
        loop = asyncio.get_running_loop()
        messages: list[bytes] = []
        try:
            while True:
                size, data = pgconn.get_copy_data(1)
                if size > 0:
                    self._heard = loop.time()
                    if (message := await self._frame(bytes(data))) is not None:
                        messages.append(message)
                elif size == 0:
                    # A bulk transaction must not hold back what has been read of it.
                    if messages:
                        return messages
                    busy = loop.time() - self._heard < _BUSY_FOR
                    if await self._ready(writing=False, seconds=_NUDGE_BUSY if busy else _NUDGE_IDLE):
                        pgconn.consume_input()
                    else:
                        await self.confirm(self._confirmed)
                else:
                    result = pgconn.get_result()
                    text = result.error_message.decode() if result is not None else ""
                    raise StreamError(text.strip() or "the server ended the replication stream")
                if len(messages) >= 1000:
                    return messages
        except psycopg.Error as error:
            raise StreamError(str(error)) from error

    async def _frame(self, data: bytes) -> bytes | None:
        if data[:1] == b"w":
            return data[_XLOG_DATA.size :]
        if data[:1] == b"k":
            _kind, wal_end, _clock, wants_reply = _KEEPALIVE.unpack_from(data)
            # Frames come in order: all before this point has been received, most of it not for us. A server
            # that shuts down waits until that is confirmed, all of it, before it lets go of us.
            self._confirmed = max(self._confirmed, wal_end)
            if wants_reply:
                await self.confirm(self._confirmed)
        return None

    async def confirm(self, lsn: int) -> None:
        """Tell the server that everything before `lsn` was taken: it may recycle that part of the log."""
        pgconn = self._pgconn
        self._confirmed = max(self._confirmed, lsn)
        clock = int((time.time() - POSTGRES_EPOCH) * 1_000_000)
        try:
            pgconn.put_copy_data(
                _STATUS.pack(b"r", self._confirmed, self._confirmed, self._confirmed, clock, 0)
            )
            await self._flush()
        except psycopg.Error as error:
            raise StreamError(str(error)) from error

    async def end(self) -> None:
        """End the stream and drop the slot, so that the database may be dropped the moment this returns.

        Raises
        ------
        StreamError
            The connection was gone already; then so is the slot.
        """
        pgconn = self._pgconn
        try:
            pgconn.put_copy_end()
            await self._flush()
            while True:
                size, _ = pgconn.get_copy_data(1)
                if size < 0:
                    break
                if size == 0:
                    await self._ready(writing=False)
                    pgconn.consume_input()
            await self._results()
            await self._command(f"DROP_REPLICATION_SLOT {self._slot} WAIT")
        except psycopg.Error as error:
            raise StreamError(str(error)) from error
        finally:
            self.close()

    def close(self) -> None:
        """Drop the connection at once; the slot goes with it."""
        if self._connection is not None:
            self._connection.finish()
            self._connection = None

    async def _command(self, sql: str) -> None:
        pgconn = self._pgconn
        pgconn.send_query(sql.encode())
        await self._flush()
        await self._results()

    async def _results(self) -> None:
        """Take the results of a command up to its end, or to the start of streaming."""
        pgconn = self._pgconn
        while True:
            while pgconn.is_busy():
                await self._ready(writing=False)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None or result.status == pq.ExecStatus.COPY_BOTH:
                return
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise StreamError(result.error_message.decode().strip())

    async def _flush(self) -> None:
        while self._pgconn.flush():
            await self._ready(writing=True)

    async def _ready(self, *, writing: bool, seconds: float | None = None) -> bool:
        """Wait for the socket; False when it was not ready in time."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        # The number is kept: libpq forgets its socket when the connection fails, the loop must not.
        number = self._pgconn.socket
        add: Callable[..., None] = loop.add_writer if writing else loop.add_reader
        remove: Callable[[int], bool] = loop.remove_writer if writing else loop.remove_reader
        add(number, _resolve, done, True)
        timer = loop.call_later(seconds, _resolve, done, False) if seconds is not None else None
        try:
            return await done
        finally:
            if timer is not None:
                timer.cancel()
            with contextlib.suppress(OSError, ValueError):  # the socket may be closed by now
                remove(number)


def _resolve(done: asyncio.Future[bool], ready: bool) -> None:
    if not done.done():
        done.set_result(ready)


def _error(pgconn: pq.abc.PGconn) -> str:
    return pgconn.error_message.decode(errors="replace").strip() or "connection failed"


def slot_name(parts: Iterable[object]) -> str:
    """A slot name of lower-case letters, digits and underscores, as PostgreSQL wants it."""
    text = "_".join(str(part) for part in parts).lower()
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in text)[:63]
