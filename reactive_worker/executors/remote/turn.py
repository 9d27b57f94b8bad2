"""One turn at a remote agent: send once, listen, and find the way back when the line breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from a2a.client import Client, ClientCallContext
from a2a.server.agent_execution import RequestContext
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    MethodNotFoundError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from reactive_worker.backoff import Backoff
from reactive_worker.errors import PermanentFailure
from reactive_worker.execution.sanitise import describe
from reactive_worker.execution.wire import INTERRUPTED
from reactive_worker.executors.remote.failures import (
    RemoteAgentError,
    failure_of,
    is_passing,
    never_sent,
)
from reactive_worker.executors.remote.known import is_answer
from reactive_worker.executors.remote.relay import Relay

_logger = logging.getLogger(__name__)

#: Pace of tries while the agent cannot be reached.
_PACE = Backoff(0.2, 5.0, jitter=0.0)
#: Seconds a cancel waits for the ids of a task that was only just sent.
_ID_WAIT = 2.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see `RemoteA2AExecutor` for the meaning."""

    request: float
    idle: float
    poll: float
    patience: float


class RemoteTurn:
    """Runs one turn.

    Parameters
    ----------
    client:
        Speaks to the agent.
    streaming:
        Whether the agent's card says that it streams.
    context:
        The local turn.
    relay:
        Publishes what is heard.
    headers:
        Sent with every call.
    timing:
        Time-outs.
    """

    def __init__(
        self,
        client: Client,
        *,
        streaming: bool,
        context: RequestContext,
        relay: Relay,
        headers: dict[str, str],
        timing: Timing,
    ) -> None:
        self._client = client
        self._streaming = streaming
        self._context = context
        self._relay = relay
        self._timing = timing
        self._short = ClientCallContext(service_parameters=headers, timeout=timing.request)
        self._long = ClientCallContext(service_parameters=headers, timeout=timing.idle)

    async def run(self) -> None:
        """Have the turn done, or go on with what an earlier run of it began."""
        if await self._is_sent():
            await self._follow()
        else:
            await self._send()

    async def cancel(self) -> None:
        """Cancel the remote task and report what really became of it."""
        relay, id = self._relay, self._relay.known.task_id
        await relay.mark_over()
        if not id:
            await relay.say_cancelled()
            return
        try:
            task = await self._client.cancel_task(CancelTaskRequest(id=id), context=self._short)
        except TaskNotCancelableError:
            task = await self._get(id, "asking how the task ended")
        except TaskNotFoundError:
            await relay.say_cancelled()
            return
        except A2AError as error:
            raise failure_of(error, "cancelling the remote task") from error
        await relay.show(task)

    async def wait_for_ids(self) -> None:
        """Give a task that was only just sent a moment to tell its id."""
        try:
            await asyncio.wait_for(self._relay.learned.wait(), _ID_WAIT)
        except TimeoutError:
            _logger.warning(
                "task %s is cancelled before the remote agent has answered: it may go on there",
                self._context.task_id,
            )

    # -- was it sent? ----------------------------------------------------------------------------------------

    async def _is_sent(self) -> bool:
        known = self._relay.known
        if is_answer(self._context):
            return await self._is_answer_sent()
        if known.task_id:
            try:
                await self._relay.show(await self._get(known.task_id, "looking for the remote task"))
            except TaskNotFoundError:
                _logger.warning(
                    "the remote agent has forgotten task %s, so task %s is sent again",
                    known.task_id,
                    self._context.task_id,
                )
                known.task_id = known.message_id = ""
                return False
            return True
        return self._is_rerun and await self._find()

    async def _is_answer_sent(self) -> bool:
        """Whether this turn's answer has arrived, so that it is not given twice."""
        known = self._relay.known
        if not known.task_id or known.over:
            raise PermanentFailure(
                "the remote task this answer belongs to has ended or is not known: submit a new task"
            )
        task = await self._get(known.task_id, "looking for the remote task")
        message_id = known.message_id_for(self._context)
        arrived = known.message_id == message_id or any(
            message.message_id == message_id for message in task.history
        )
        waits = task.status.state in INTERRUPTED
        # Waiting with another question than ours: it was answered, by an earlier run of this turn.
        if not arrived and waits and (self._relay.is_answered(task.status) or not self._is_rerun):
            self._relay.answers(task.status)
            return False
        await self._relay.show(task)
        return True

    async def _find(self) -> bool:
        """Look for a task made by a run that was lost before it could keep the id."""
        known, context = self._relay.known, self._context
        message_id = known.message_id_for(context)
        request = ListTasksRequest(context_id=context.context_id or "", page_size=50, history_length=100)
        try:
            found = await self._client.list_tasks(request, context=self._short)
        except A2AError as error:
            if is_passing(error):
                raise failure_of(error, "looking for an earlier run's task") from error
            _logger.debug("the remote agent lists no tasks: %s", describe(error))
            return False
        except NotImplementedError:  # Agents of A2A 0.3 have no such call.
            return False
        for task in found.tasks:
            if any(message.message_id == message_id for message in task.history):
                await self._relay.show(await self._get(task.id, "looking for the remote task"))
                return True
        return False

    @property
    def _is_rerun(self) -> bool:
        return self._context.call_context.state.get("reason") == "rerun"

    # -- sending ---------------------------------------------------------------------------------------------

    def _request(self) -> SendMessageRequest:
        context, known = self._context, self._relay.known
        if context.message is None:
            raise PermanentFailure("this turn has no message to send")
        request = SendMessageRequest(message=context.message)
        message = request.message
        message.message_id = known.message_id_for(context)
        message.task_id = known.task_id if is_answer(context) else ""
        message.context_id = known.context_id or context.context_id or ""
        # They name tasks the remote agent knows nothing of.
        del message.reference_task_ids[:]
        request.metadata.update(context.metadata)
        return request

    async def _send(self) -> None:
        relay = self._relay
        request = self._request()
        message_id = request.message.message_id
        relay.known.message_id = ""
        relay.learned.clear()
        try:
            await self._listen(self._client.send_message(request, context=self._long), sent=message_id)
        except A2AError as error:
            # Nobody can tell whether a request without an answer has arrived, unless it never left.
            begun = relay.learned.is_set()
            if not is_passing(error) or (not begun and (never_sent(error) or not await self._find())):
                raise failure_of(error, "sending the message") from error
            _logger.info("the stream of task %s broke, going back: %s", self._context.task_id, error)
        if not relay.settled:
            await self._follow()

    async def _listen(self, stream: AsyncIterator[StreamResponse], *, sent: str = "") -> None:
        # Closed here and now, not when the garbage collector comes by: a connection hangs on it.
        async with aclosing(cast("Any", stream)) as items:
            async for item in items:
                await self._relay.take(item, sent=sent)
                if self._relay.settled:
                    return

    # -- following -------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Stay with a task that is there until it has ended or asks: look, listen, look again."""
        relay = self._relay
        loop = asyncio.get_running_loop()
        reached, tries = loop.time(), 0
        while not relay.settled:
            try:
                task = await self._client.get_task(
                    GetTaskRequest(id=relay.known.task_id), context=self._short
                )
                reached, tries = loop.time(), 0
                await relay.show(task)
                if relay.settled or self._is_parked(task):
                    return
                if self._streaming:
                    await self._subscribe()
                if not relay.settled:
                    await asyncio.sleep(self._timing.poll)
            except A2AError as error:
                if isinstance(error, TaskNotFoundError) and not is_answer(self._context):
                    # It lost its memory; the next run looks once more, and then sends again.
                    raise RemoteAgentError("the remote agent has forgotten the task it was at") from error
                if not is_passing(error) or loop.time() - reached > self._timing.patience:
                    raise failure_of(error, "following the remote task") from error
                tries += 1
                await asyncio.sleep(_PACE.delay(tries))

    def _is_parked(self, task: Task) -> bool:
        return task.status.state == TaskState.TASK_STATE_AUTH_REQUIRED and not self._relay.is_answered(
            task.status
        )

    async def _subscribe(self) -> None:
        request = SubscribeToTaskRequest(id=self._relay.known.task_id)
        try:
            await self._listen(self._client.subscribe(request, context=self._long))
        except UnsupportedOperationError:
            return  # It ended in between: the next look shows how.
        except (MethodNotFoundError, NotImplementedError):
            self._streaming = False

    async def _get(self, id: str, doing: str) -> Task:
        """A snapshot; waits out what passes. Raises TaskNotFoundError of a2a in a first turn."""
        loop = asyncio.get_running_loop()
        start, tries = loop.time(), 0
        while True:
            try:
                return await self._client.get_task(GetTaskRequest(id=id), context=self._short)
            except A2AError as error:
                if isinstance(error, TaskNotFoundError) and not is_answer(self._context):
                    raise
                if not is_passing(error) or loop.time() - start > self._timing.patience:
                    raise failure_of(error, doing) from error
            tries += 1
            await asyncio.sleep(_PACE.delay(tries))
