"""Messages of the database: rows of ``realtime.messages``, streamed to the members of their topic.

Nothing is polled: a message is on its way to its members a moment after its transaction committed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

from reactive_worker.local.faults import Faults
from reactive_worker.local.realtime import decode
from reactive_worker.local.realtime.broadcast import LARGEST_PAYLOAD
from reactive_worker.local.realtime.database import AnyConnection, Database
from reactive_worker.local.realtime.joins import TOPIC_PREFIX, Replay
from reactive_worker.local.realtime.log_reader import LogReader
from reactive_worker.local.realtime.rooms import Room
from reactive_worker.local.realtime.serializer import UserBroadcast
from reactive_worker.local.realtime.timings import Timings

log = logging.getLogger(__name__)

#: How often the switch `stream_gap` is looked at again, in seconds.
_GAP_CHECK = 0.02

_PUBLICATION = "supabase_realtime_messages_publication"
_UPKEEP = Path(__file__).parent.parent / "realtime_upkeep.sql"

#: Takes a message for the members of a room.
Deliver = Callable[[Room, UserBroadcast], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A stored message, for a member that asked for what it missed."""

    id: str
    event: str
    payload: Any


def read_message(relation: decode.Relation, row: decode.Row) -> tuple[Room, UserBroadcast] | None:
    """A row of ``realtime.messages`` as a broadcast; None for one that is stored but never delivered.

    Example
    -------
    >>> read_message(relation, row)
    (Room(topic='realtime:jobs', private=True), UserBroadcast(event='wake', ...))
    """
    values = {column.name: value for column, value in zip(relation.columns, row, strict=True)}
    topic, event, private = values.get("topic"), values.get("event"), values.get("private")
    number, payload, binary = values.get("id"), values.get("payload"), values.get("binary_payload")
    if not (isinstance(topic, str) and isinstance(event, str) and isinstance(private, str)):
        return None
    room = Room(TOPIC_PREFIX + topic, private == "t")
    name = number if isinstance(number, str) else None
    if isinstance(payload, str):
        return room, UserBroadcast(event, payload.encode(), is_json=True, message_id=name)
    if isinstance(binary, str):
        # The log has bytes as their hexadecimal text.
        data = bytes.fromhex(binary.removeprefix("\\x"))
        return room, UserBroadcast(event, data, is_json=False, message_id=name)
    return None


class MessageStream:
    """Runs from the first member of any channel to some seconds after the last.

    Parameters
    ----------
    dsn:
        Connection string of a superuser.
    deliver:
        Called with each message, in commit order.
    faults, timings:
        The switch that makes it deaf, and waits.
    """

    def __init__(self, dsn: str, *, deliver: Deliver, faults: Faults, timings: Timings) -> None:
        self._deliver = deliver
        self._faults = faults
        self._timings = timings
        self._database = Database(dsn, name="realtime_messages")
        self._reader = LogReader(
            dsn,
            publication=_PUBLICATION,
            name="realtime_messages",
            first_wait=timings.messages_reconnect_first,
            longest_wait=timings.messages_reconnect_longest,
        )
        self._relations: dict[int, decode.Relation] = {}
        self._read_lsn = 0
        self._task: asyncio.Task[None] | None = None
        self._prepared = asyncio.Event()
        #: Messages dealt with so far: delivered, without a member, or thrown away.
        self.handled = 0

    def start(self) -> None:
        """Begin to stream; harmless when it has begun."""
        if self._task is None or self._task.done():
            self._prepared.clear()
            self._task = asyncio.create_task(self._run(), name="realtime-messages")

    def restart(self) -> None:
        """Lose the stream as a server that restarts does; it opens again after the `stream_gap`."""
        if self._task is not None and not self._task.done():
            self._reader.live.clear()
            self._task.cancel()
            self._task = asyncio.create_task(self._run_after(self._task), name="realtime-messages")

    async def _run_after(self, old: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait({old})
        except asyncio.CancelledError:
            # Whoever stops this may drop the database next: the old slot has to be gone, too.
            await asyncio.wait({old})
            raise
        await self._run()

    async def prepared(self) -> None:
        """Wait until today's partition is there, which the policies need too; or could not be made."""
        await self._prepared.wait()

    @property
    def live(self) -> bool:
        """Whether messages committed from now on will be delivered."""
        return self._reader.live.is_set()

    async def wait(self, seconds: float) -> bool:
        """Wait until messages committed from now on will be delivered; False when they still are not."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.live.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Give up the slot and the connection; returns when the database may be dropped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._database.close()

    async def _run(self) -> None:
        keeping = asyncio.create_task(self._keep_up(), name="realtime-upkeep")
        try:
            await self._reader.run(self._take, opened=self._relations.clear, prepare=self._begin)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _begin(self) -> None:
        await self._prepare()
        await self._open_late()

    async def _prepare(self) -> None:
        script = cast("LiteralString", _UPKEEP.read_text(encoding="utf-8"))
        try:
            async with self._database.connection() as connection:
                await connection.execute(script)
        finally:
            self._prepared.set()

    async def _open_late(self) -> None:
        # The slot begins when it is made: what is committed during the gap is never read.
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # Any thread may set the switch, and without notice: hence the repeated look.
        while loop.time() - begun < self._faults.stream_gap:  # noqa: ASYNC110 - see above
            await asyncio.sleep(_GAP_CHECK)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self._timings.partition_check)
            try:
                await self._prepare()
            except Exception:
                # Those of the next days are there already; the next look is a few hours away.
                log.exception("the upkeep of realtime.messages failed")

    async def _take(self, messages: Sequence[bytes]) -> int:
        for message in messages:
            match decode.decode(message):
                case decode.Relation() as relation:
                    self._relations[relation.oid] = relation
                case decode.Commit(end_lsn=end_lsn):
                    self._read_lsn = end_lsn
                case decode.Insert(oid, new):
                    self._pass_on(self._relations[oid], new)
                case _:
                    # Updates and deletions of messages are nobody's business.
                    continue
        return self._read_lsn

    def _pass_on(self, relation: decode.Relation, row: decode.Row) -> None:
        found = read_message(relation, row)
        self.handled += 1
        if found is None or self._faults.broadcast_deaf:
            return
        room, broadcast = found
        if len(broadcast.data) > LARGEST_PAYLOAD:
            log.warning("a message to %s is dropped: %d bytes", room.topic, len(broadcast.data))
            return
        self._deliver(room, broadcast)

    async def replay(self, topic: str, wanted: Replay) -> list[Replayed]:
        """The newest messages of a private topic since some time, oldest first.

        Parameters
        ----------
        topic:
            Without prefix.

        Raises
        ------
        psycopg.Error
            The database does not answer.
        """
        rows = await self._database.run(lambda connection: _newest(connection, topic, wanted))
        return [Replayed(number, event, json.loads(payload)) for number, event, payload in reversed(rows)]


async def _newest(connection: AnyConnection, topic: str, wanted: Replay) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(
        "select id::text, event, payload::text from realtime.messages"
        " where topic = %s and private and extension = 'broadcast'"
        " and event is not null and payload is not null"
        # Times in the table are those of the writer's time zone, which is UTC unless it was changed.
        " and inserted_at >= (to_timestamp(%s::float8 / 1000) at time zone 'UTC')"
        " order by inserted_at desc limit %s",
        (topic, wanted.since, wanted.limit),
    )
    return await cursor.fetchall()
