"""A real a2a-sdk server on loopback, whose agent does what its prompt says."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from a2a.helpers import new_data_part, new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Message, TaskState
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reactive_worker.executors.remote_a2a import RemoteA2AExecutor


def forwarding() -> RemoteA2AExecutor:
    """For worker processes: forwards to REMOTE_AGENT_URL."""
    return RemoteA2AExecutor(os.environ["REMOTE_AGENT_URL"])


class RemoteAgent(AgentExecutor):
    """Does what the first word of its prompt says; everything it is sent is in `received`."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.cancelled: list[str] = []
        self.headers: list[dict[str, str]] = []
        #: Lets those that `wait` go on.
        self.go = asyncio.Event()
        #: Set when one of them waits.
        self.waiting = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        received = Message()
        received.CopyFrom(context.message)
        self.received.append(received)
        self.headers.append(dict(context.call_context.state.get("headers", {})))
        word, _, text = context.get_user_input().partition(" ")
        if word == "reply":
            await event_queue.enqueue_event(new_text_message(f"reply to {text}"))
            return
        task = context.current_task
        asked = task is not None
        if task is None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        up = TaskUpdater(event_queue, task.id, task.context_id)
        if asked:
            await up.start_work(new_text_message("thank you"))
            if word == "wait":
                await self._wait()
            await up.add_artifact([new_text_part(f"answered {word}")], artifact_id="answer")
            await up.complete()
            return
        await getattr(self, f"_{word}")(up, text)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.cancelled.append(context.task_id or "")
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel(
            new_text_message("stopped over there")
        )

    async def _echo(self, up: TaskUpdater, text: str) -> None:
        await up.start_work(new_text_message("thinking"))
        for n, word in enumerate(text.split()):
            await up.add_artifact([new_text_part(f"{word} ")], artifact_id="answer", append=n > 0)
        await up.add_artifact([new_data_part({"n": 7})], artifact_id="data")
        await up.complete(new_text_message("done"))

    async def _wait(self, up: TaskUpdater | None = None, text: str = "") -> None:
        if up is not None:
            await up.add_artifact([new_text_part("first ")], artifact_id="answer")
        self.waiting.set()
        await self.go.wait()
        if up is not None:
            await up.add_artifact([new_text_part("second")], artifact_id="answer", append=True)
            await up.complete()

    async def _ask(self, up: TaskUpdater, text: str) -> None:
        await up.requires_input(new_text_message(f"which {text}?"))

    async def _login(self, up: TaskUpdater, text: str) -> None:
        await up.requires_auth(new_text_message("log in first"))

    async def _fail(self, up: TaskUpdater, text: str) -> None:
        await up.failed(new_text_message(text))

    async def _raise(self, up: TaskUpdater, text: str) -> None:
        raise RuntimeError(text)

    async def _big(self, up: TaskUpdater, text: str) -> None:
        await up.add_artifact([new_text_part("x" * int(text))], artifact_id="answer")
        await up.complete()


class RemoteServer:
    """The agent and where it is served."""

    def __init__(self, agent: RemoteAgent, port: int) -> None:
        self.agent = agent
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.card = AgentCard(
            name="remote",
            version="1",
            description="a test",
            capabilities=AgentCapabilities(streaming=True),
            default_input_modes=["text"],
            default_output_modes=["text"],
            skills=[AgentSkill(id="all", name="all", description="all", tags=["all"])],
        )
        self.speak(port)
        #: Answered instead, when set: status, headers.
        self.refuse: tuple[int, dict[str, str]] | None = None
        #: Paths asked for, with their JSON-RPC method.
        self.calls: list[str] = []

    def speak(self, port: int, *, binding: str = "JSONRPC", version: str = "1.0") -> None:
        """Where the card says the agent is."""
        del self.card.supported_interfaces[:]
        path = "/rpc" if binding == "JSONRPC" else "/rest"
        self.card.supported_interfaces.append(
            AgentInterface(
                url=f"http://127.0.0.1:{port}{path}", protocol_binding=binding, protocol_version=version
            )
        )

    async def store_has(self, state: str) -> bool:
        """Whether a task of the agent is in this state."""
        tasks = [await self.store.get(m.task_id, ServerCallContext()) for m in self.agent.received]
        return any(task is not None and TaskState.Name(task.status.state) == state for task in tasks)

    async def forget(self) -> None:
        """Lose every task, as a restart with a store in memory does."""
        for message in self.agent.received:
            await self.store.delete(message.task_id, ServerCallContext())

    def app(self) -> Any:
        """The ASGI application."""
        self.store = InMemoryTaskStore()
        self.handler = DefaultRequestHandler(
            agent_executor=self.agent, task_store=self.store, agent_card=self.card
        )
        app = Starlette(
            routes=[
                *create_agent_card_routes(self.card),
                *create_jsonrpc_routes(self.handler, "/rpc", enable_v0_3_compat=True),
                *create_rest_routes(self.handler, path_prefix="/rest"),
            ]
        )

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            request = Request(scope, receive)
            body = await request.body()
            self.calls.append(_method(request, body))
            if self.refuse is not None:
                status, headers = self.refuse
                answer: Response = JSONResponse({"error": "no"}, status, headers)
                await answer(scope, receive, send)
                return
            told = False

            async def again() -> Any:
                nonlocal told
                if told:
                    return await receive()
                told = True
                return {"type": "http.request", "body": body, "more_body": False}

            await app(scope, again, send)

        return counted


def _method(request: Request, body: bytes) -> str:
    if request.url.path == "/rpc":
        return str(json.loads(body)["method"])
    return request.url.path


@asynccontextmanager
async def serving(port: int = 0) -> AsyncGenerator[RemoteServer]:
    """Serve an agent in this event loop."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        remote = RemoteServer(RemoteAgent(), listener.getsockname()[1])
        config = uvicorn.Config(remote.app(), log_level="error", lifespan="off", ws="none")
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign]
        task = asyncio.create_task(server._serve(sockets=[listener]))  # the public one takes the signals
        try:
            while not server.started:
                await asyncio.sleep(0.005)
            yield remote
        finally:
            remote.agent.go.set()
            await remote.handler.aclose()  # type: ignore[attr-defined]
            server.should_exit = True
            await task
