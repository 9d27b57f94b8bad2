"""Push end to end: a worker that serves nobody registers, a task for it is inserted, heard and deleted."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import httpx

from reactive_worker.access.redaction import redact
from reactive_worker.errors import ReactiveWorkerError
from reactive_worker.store.connection import Connection
from reactive_worker.store.push.broadcast import BroadcastLink
from reactive_worker.store.push.changes import Change, RealtimeLink
from reactive_worker.store.push.channel import bindings
from reactive_worker.store.push.hints import topics
from reactive_worker.store.push.link import Link

#: Agent types that begin like this are ours, and nobody else's.
PROBE_TYPE = "reactive-worker-doctor-"

#: What is sent, in words.
_PROBES = {"mailbox": "a touched mailbox", "task": "a new task"}

State = Literal["heard", "deaf", "refused", "absent"]


@dataclass(frozen=True)
class Way:
    """One way of push: changes, or broadcast.

    Attributes
    ----------
    state:
        ``heard``: what was sent came; ``deaf``: let in, but it did not come; ``refused``: not let in;
        ``absent``: this database does not send that way.
    detail:
        Why, or what came or did not come.
    """

    state: State
    detail: str = ""


@dataclass(frozen=True)
class PushFacts:
    """What became of the probe.

    Attributes
    ----------
    problem:
        Why no probe could be sent.
    left:
        What could not be taken away again.
    """

    changes: Way | None = None
    broadcast: Way | None = None
    problem: str = ""
    left: tuple[str, ...] = ()


@dataclass
class _Ear:
    """What one link has to hear, and what it has."""

    wanted: set[str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    all: asyncio.Event = field(default_factory=asyncio.Event)
    heard: set[str] = field(default_factory=set[str])

    def hear(self, what: str) -> None:
        self.heard.add(what)
        if self.wanted <= self.heard:
            self.all.set()


async def probe_push(connection: Connection, *, as_service: bool, timeout: float = 10.0) -> PushFacts:
    """Send a probe both ways and say which came back.

    Parameters
    ----------
    connection:
        Of a role that may do a worker's work.
    as_service:
        Whether it may insert and delete a task, too; else only a touched mailbox is listened for.
    timeout:
        Seconds to be let in, and again seconds until the probe must have come.
    """
    worker_id = str(uuid.uuid4())
    agent_type = f"{PROBE_TYPE}{worker_id[:8]}"
    try:
        ways: Mapping[str, Any] = await connection.rpc("push_ways", {})
        await connection.rpc(
            "register_worker",
            {
                "p_worker_id": worker_id,
                "p_name": "reactive-worker doctor",
                "p_agent_types": [agent_type],
                "p_concurrency": 1,
                "p_lease_seconds": 60 + 2 * timeout,
            },
        )
    except ReactiveWorkerError as error:
        return PushFacts(problem=str(error))
    wanted = {"mailbox", "task"} if as_service else {"mailbox"}
    changes, broadcast = _Ear(set(wanted)), _Ear(set(wanted))
    links: list[tuple[Link, _Ear]] = [(_changes_link(connection, worker_id, agent_type, changes), changes)]
    if ways.get("broadcast"):
        links.append((_broadcast_link(connection, worker_id, agent_type, broadcast), broadcast))
    problem, left = "", []
    try:
        await asyncio.gather(*(link.start() for link, _ in links))
        await asyncio.gather(*(_happens(ear.ready, timeout) for _, ear in links))
        problem = await _send(connection, worker_id, agent_type, as_service=as_service)
        if not problem:
            await asyncio.gather(*(_happens(ear.all, timeout) for _, ear in links if ear.ready.is_set()))
    finally:
        await asyncio.gather(*(link.stop() for link, _ in links))
        left = await _tidy(connection, worker_id, agent_type, as_service=as_service)
    judged = [_way(link, ear, timeout) for link, ear in links]
    return PushFacts(
        changes=judged[0],
        broadcast=judged[1] if len(judged) > 1 else Way("absent", str(ways.get("reason") or "")),
        problem=problem,
        left=tuple(left),
    )


def _changes_link(connection: Connection, worker_id: str, agent_type: str, ear: _Ear) -> Link:
    def heard(change: Change) -> None:
        ear.hear("mailbox" if change.table == "worker_mailbox" else "task")

    return RealtimeLink(
        connection.url,
        connection.credentials,
        f"doctor:{worker_id}",
        bindings(worker_id, [agent_type]),
        on_change=heard,
        on_ready=ear.ready.set,
    )


def _broadcast_link(connection: Connection, worker_id: str, agent_type: str, ear: _Ear) -> Link:
    def heard(event: str, payload: Mapping[str, Any]) -> None:
        ear.hear("mailbox" if event == "mailbox" else "task")

    return BroadcastLink(
        connection.url,
        connection.credentials,
        topics(worker_id, [agent_type]),
        on_message=heard,
        on_ready=ear.ready.set,
    )


async def _happens(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return  # what did not happen is seen in the event


async def _send(connection: Connection, worker_id: str, agent_type: str, *, as_service: bool) -> str:
    try:
        if as_service:
            row = {"agent_type": agent_type, "prompt": "Is Realtime listening?", "max_failures": 1}
            await connection.rpc("submit_todos", {"p_rows": [row]}, answers=list)
        await connection.rpc("touch_probe", {"p_worker_id": worker_id})
    except ReactiveWorkerError as error:
        return str(error)
    return ""


def _way(link: Link, ear: _Ear, timeout: float) -> Way:
    if ear.all.is_set():
        return Way("heard", " and ".join(sorted(_PROBES[what] for what in ear.wanted)))
    if not ear.ready.is_set():
        reason = link.refusal or _said(link.reason)
        return Way("refused", reason or f"no answer to the join within {timeout:g} s")
    missing = " and ".join(sorted(_PROBES[what] for what in ear.wanted - ear.heard))
    return Way("deaf", f"{missing} not heard within {timeout:g} s")


def _said(reason: str) -> str:
    """The sentence in what a link gives as its reason, which may quote a server's JSON."""
    start = reason.find("{")
    try:
        said = json.loads(reason[start:]) if start >= 0 else None
    except ValueError:
        return reason
    fields = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    return str(fields.get("message") or fields.get("reason") or reason)


async def _tidy(connection: Connection, worker_id: str, agent_type: str, *, as_service: bool) -> list[str]:
    """Take the probe away; returns what could not be."""
    left: list[str] = []
    if as_service:
        async with httpx.AsyncClient(timeout=30) as http:
            try:
                answer = await http.delete(
                    f"{connection.url}/rest/v1/todolist",
                    params={"agent_type": f"eq.{agent_type}"},
                    headers=connection.credentials.headers(),
                )
                if not answer.is_success:
                    left.append(f"the probe's task ({redact(answer.text)})")
            except httpx.HTTPError as error:
                left.append(f"the probe's task ({redact(str(error)) or type(error).__name__})")
    try:
        await connection.rpc("unregister_worker", {"p_worker_id": worker_id})
    except ReactiveWorkerError as error:
        left.append(f"the probe's worker ({error}); the next sweep of a worker takes it away")
    return left
