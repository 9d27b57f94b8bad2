"""An executor that has its tasks done by an A2A agent somewhere else."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.types import AgentCard
from a2a.utils.errors import A2AError

from reactive_worker.errors import ConfigurationError, PermanentFailure
from reactive_worker.executors.remote.failures import failure_of
from reactive_worker.executors.remote.guard import AllowedHosts, GuardedTransport
from reactive_worker.executors.remote.known import Known
from reactive_worker.executors.remote.relay import Relay
from reactive_worker.executors.remote.turn import RemoteTurn, Timing

Headers = Mapping[str, str] | Callable[[RequestContext], Mapping[str, str] | Awaitable[Mapping[str, str]]]

#: Seconds an agent's card is used before it is read again.
CARD_LIFETIME = 300.0
_BINDINGS = ["JSONRPC", "HTTP+JSON"]


class RemoteA2AExecutor(AgentExecutor):
    """Forwards each task to a remote A2A agent and relays what it says.

    The remote task's ids are kept in the task's metadata as soon as its first event arrives. A later run of
    the same row (after a crash, an outage, a lost lease) goes on with that remote task instead of sending the
    message again; the answer to a question, too, is given once. Artifacts, progress, questions
    (INPUT_REQUIRED, AUTH_REQUIRED) and the end pass through under local ids; a cancel is passed on.

    Errors that may pass (the network, HTTP 408, 425, 5xx, an internal error over there) count one failure and
    are tried again; 429 waits as long as the agent says and counts none; all others (401, unknown method,
    wrong parameters, a host that is not allowed) fail the task at once.

    Parameters
    ----------
    url:
        The agent's base URL; its card is read from ``<url>/.well-known/agent-card.json``.
    headers:
        Sent with every request, for example ``{"Authorization": "Bearer ..."}``, or a function of the request
        context that returns them (plain or awaitable), for credentials that differ by owner or expire.
    allowed_hosts:
        Hosts the agent's card may lead to besides that of `url`: ``name`` or ``name:port``.
    timeout:
        Seconds one short request may take. The whole turn is bounded by the row's or worker's time-out.
    idle_timeout:
        Seconds a stream may be silent, pings included, before it is taken for dead and picked up again.
    poll_interval:
        Seconds between looks at an agent that does not stream.
    patience:
        Seconds the agent may be out of reach in the middle of a task before the run gives up; the next run
        goes on from there.
    http:
        Your own httpx client; it is never closed by us, and `allowed_hosts` does not bind it.

    Raises
    ------
    ConfigurationError
        An argument is malformed.

    Example
    -------
    >>> executor = RemoteA2AExecutor("https://agent.example.com")
    >>> worker = ReactiveWorker(executor, agent_type="remote")  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers | None = None,
        allowed_hosts: Iterable[str] = (),
        timeout: float = 30.0,
        idle_timeout: float = 120.0,
        poll_interval: float = 1.0,
        patience: float = 60.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        for name, value in {
            "timeout": timeout,
            "idle_timeout": idle_timeout,
            "poll_interval": poll_interval,
        }.items():
            if not value > 0:
                raise ConfigurationError(f"{name} must be a positive number of seconds, not {value!r}")
        if not patience >= 0:
            raise ConfigurationError(f"patience must be a number of seconds from 0, not {patience!r}")
        self._url = url.rstrip("/")
        self._allowed = AllowedHosts(self._url, allowed_hosts)
        self._headers = headers
        self._timing = Timing(timeout, idle_timeout, poll_interval, patience)
        self._given = http
        self._http: httpx.AsyncClient | None = None
        self._users = 0
        self._card: tuple[AgentCard, float] | None = None
        self._running: dict[str, Relay] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Have one turn done over there."""
        task_id = context.task_id or ""
        relay = self._running[task_id] = Relay(context, event_queue, Known.of(context))
        try:
            async with self._turn(context, relay) as turn:
                await turn.run()
        finally:
            if self._running.get(task_id) is relay:
                del self._running[task_id]

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Cancel the remote task, and report how it really ended."""
        relay = self._running.get(context.task_id or "")
        running = relay is not None
        relay = relay or Relay(context, event_queue, Known.of(context))
        async with self._turn(context, relay) as turn:
            if running:
                await turn.wait_for_ids()
            await turn.cancel()

    # -- parts -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, context: RequestContext, relay: Relay) -> AsyncGenerator[RemoteTurn]:
        headers = await self._headers_for(context)
        async with self._connected() as http:
            card = await self._read_card(http, headers)
            factory = ClientFactory(
                # An agent that does not stream is asked to answer at once, and looked at until it has ended.
                ClientConfig(httpx_client=http, supported_protocol_bindings=_BINDINGS, polling=True)
            )
            try:
                client = factory.create(card)
            except ValueError as error:
                offered = ", ".join(each.protocol_binding for each in card.supported_interfaces) or "nothing"
                raise PermanentFailure(
                    f"the remote agent at {self._url} speaks {offered}, this executor "
                    f"{' and '.join(_BINDINGS)}: {error}"
                ) from error
            yield RemoteTurn(
                client,
                streaming=card.capabilities.streaming,
                context=context,
                relay=relay,
                headers=headers,
                timing=self._timing,
            )

    async def _headers_for(self, context: RequestContext) -> dict[str, str]:
        headers = self._headers(context) if callable(self._headers) else self._headers or {}
        return dict(await headers if inspect.isawaitable(headers) else headers)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[httpx.AsyncClient]:
        """One client for all turns that run now; nothing stays open when none does."""
        if self._given is not None:
            yield self._given
            return
        if self._http is None:
            # No credentials here: the card chooses the URLs. Streams are bounded per call.
            self._http = httpx.AsyncClient(
                transport=GuardedTransport(self._allowed), timeout=httpx.Timeout(self._timing.request)
            )
        http = self._http
        self._users += 1
        try:
            yield http
        finally:
            self._users -= 1
            if self._users == 0:
                self._http = None
                await asyncio.shield(http.aclose())

    async def _read_card(self, http: httpx.AsyncClient, headers: Mapping[str, str]) -> AgentCard:
        if self._card is not None and time.monotonic() - self._card[1] < CARD_LIFETIME:
            return self._card[0]
        try:
            card = await A2ACardResolver(http, self._url).get_agent_card(
                http_kwargs={"headers": dict(headers)}
            )
        except A2AError as error:
            raise failure_of(error, f"reading the agent card of {self._url}") from error
        self._card = (card, time.monotonic())
        return card
