"""Graphs of LangGraph as executors. Needs the extra ``langgraph``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, cast

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from reactive_worker.errors import ConfigurationError, PermanentFailure
from reactive_worker.execution.context import thread_key
from reactive_worker.executors._frameworks import Output, answer_of, is_answer, require, shown
from reactive_worker.executors._model_errors import model_errors

#: Key in the task's metadata: ids of the interrupts that were asked.
KEY = "langgraph_interrupts"
_MODES = ["updates", "messages", "custom"]


class LangGraphExecutor(AgentExecutor):
    """Runs a compiled LangGraph graph; the thread is the task, of its owner.

    Tokens of chat models are streamed as an artifact named after their node; when a node speaks again, its
    newest message takes the place of the one before. Each finished node and tool call, and whatever a node
    gives to its stream writer, is progress. A result nobody streamed becomes the artifact ``result``: the
    last message's text, or else the final state as data.

    ``interrupt()`` parks the task as INPUT_REQUIRED, and the answer (its data part, else its text) is what
    ``interrupt()`` returns. When several wait at once, all get the answer; with data of the form
    ``{"<interrupt id>": ...}`` those named get theirs, and the rest is asked again. This needs a
    checkpointer. With a durable one (PostgreSQL, SQLite) a
    task that waits is answered on any worker, and a run lost in a crash goes on after the last finished
    node; with ``InMemorySaver`` a restart forgets both.

    For what a model's errors mean see `model_errors`; where your chat model repeats requests itself
    (``max_retries``), they come after that.

    Parameters
    ----------
    graph:
        What ``StateGraph.compile()`` or ``create_agent()`` returned.
    input:
        Function of the request context that returns the graph's input. Without it: the prompt as a user's
        message if the state has ``messages``, as ``prompt`` if it has that, and the fields of `input_data`
        the state has.
    output:
        Function of the final state that returns the result, text or JSON.
    nodes:
        Nodes whose tokens are streamed; by default all.
    config:
        LangGraph's configuration of every run, for example ``{"recursion_limit": 50}``.

    Raises
    ------
    ConfigurationError
        LangGraph is not installed, the graph is not compiled, or its input cannot be made from a prompt.

    Example
    -------
    >>> graph = create_agent(model, tools=[search], checkpointer=saver)  # doctest: +SKIP
    >>> worker = ReactiveWorker(LangGraphExecutor(graph), agent_type="helper")  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: Any,
        *,
        input: Callable[[RequestContext], Any] | None = None,
        output: Callable[[Any], Any] | None = None,
        nodes: Collection[str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._types = require("langgraph.types", "langgraph")
        if not hasattr(graph, "astream"):
            compile_it = ": call its compile() first" if hasattr(graph, "compile") else ""
            raise ConfigurationError(
                f"LangGraphExecutor takes a compiled graph, not {type(graph).__qualname__}{compile_it}"
            )
        self._graph = graph
        # Not its JSON schema: not every state has one. The others are LangGraph's own channels.
        channels = cast("Mapping[str, Any]", getattr(graph, "channels", {}))
        self._fields = frozenset(name for name in channels if not name.startswith("__") and ":" not in name)
        if input is None and not self._fields & {"messages", "prompt"}:
            raise ConfigurationError(
                "the graph's state has neither `messages` nor `prompt` to put the prompt into: "
                "pass input=lambda context: {...}"
            )
        self._input = input or self._default_input
        self._output = output
        self._nodes = frozenset(nodes) if nodes is not None else None
        self._config = dict(config or {})

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run the graph until it ends or interrupts itself."""
        out = Output(context, event_queue)
        await out.begin()
        config = self._config_of(context)
        asking = await self._still_asking(context, config)
        if asking:
            await self._ask(asking, out)
            return
        with model_errors():
            given = await self._given(context, config)
            state, interrupts = await self._relay(given, config, out)
        if interrupts:
            if not self._graph.checkpointer:
                raise PermanentFailure(
                    "the graph called interrupt() and has no checkpointer to wait in: "
                    "compile(checkpointer=...) with a durable one, such as AsyncPostgresSaver"
                )
            await self._ask(interrupts, out)
            return
        waiting = (await self._graph.aget_state(config)).next if self._graph.checkpointer else ()
        if waiting:
            # Compiled with interrupt_before or interrupt_after: a breakpoint, which has no question.
            await out.ask(f"paused before {', '.join(waiting)}: any answer goes on, cancel ends it")
            return
        await self._publish(state, out)
        await out.updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that the task is cancelled; the graph ends with its coroutine."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    # -- what goes in ----------------------------------------------------------------------------------------

    def _default_input(self, context: RequestContext) -> dict[str, Any]:
        data: Any = context.call_context.state.get("input_data")
        given: dict[str, Any] = {}
        if isinstance(data, dict):
            fields = cast("dict[str, Any]", data)
            given = {name: value for name, value in fields.items() if name in self._fields}
        prompt = context.get_user_input()
        if "messages" in self._fields:
            given["messages"] = [{"role": "user", "content": prompt}]
        if "prompt" in self._fields:
            given["prompt"] = prompt
        return given

    def _config_of(self, context: RequestContext) -> dict[str, Any]:
        own = cast("dict[str, Any]", self._config.get("configurable") or {})
        return {**self._config, "configurable": {**own, "thread_id": thread_key(context)}}

    async def _pending(self, config: dict[str, Any]) -> list[Any]:
        return list((await self._graph.aget_state(config)).interrupts) if self._graph.checkpointer else []

    async def _still_asking(self, context: RequestContext, config: dict[str, Any]) -> list[Any]:
        """Interrupts this run has no answer for, when there are no others.

        The run that met them was lost before it could ask; or it was lost when it had used up the answers by
        id that this one is given again.
        """
        pending = await self._pending(config)
        known = _asked(context)
        if not any(each.id in known for each in pending):
            return pending
        by_id = _by_id(answer_of(context), known)
        return pending if by_id is not None and not any(each.id in by_id for each in pending) else []

    async def _given(self, context: RequestContext, config: dict[str, Any]) -> Any:
        """The first input, answers, or None: go on from the last checkpoint."""
        if not self._graph.checkpointer:
            return self._input(context)
        pending = await self._pending(config)
        if pending:
            answer = answer_of(context)
            by_id = _by_id(answer, _asked(context))
            resume = {
                str(each.id): answer if by_id is None else by_id[each.id]
                for each in pending
                if by_id is None or each.id in by_id
            }
            return self._types.Command(resume=resume)
        begun = (await self._graph.aget_state(config)).created_at is not None
        if is_answer(context) and not begun:
            raise PermanentFailure(
                "the graph's checkpoint of this task is gone, so its question cannot be answered: "
                "use a durable checkpointer, which outlives a worker's restart"
            )
        return None if begun else self._input(context)

    # -- what comes out --------------------------------------------------------------------------------------

    async def _relay(self, given: Any, config: dict[str, Any], out: Output) -> tuple[Any, list[Any]]:
        interrupts: list[Any] = []
        state: Any = None
        if given is None:
            state = (await self._graph.aget_state(config)).values
        texts = _Texts(out, self._nodes)
        stream = self._graph.astream(given, config, stream_mode=[*_MODES, "values"])
        async with aclosing(stream) as items:
            async for mode, item in items:
                if mode == "values":
                    state = item
                elif mode == "messages":
                    await texts.take(*item)
                elif mode == "custom":
                    await out.progress(shown(item))
                elif "__interrupt__" in item:
                    interrupts += item["__interrupt__"]
                else:
                    for node, update in item.items():
                        texts.end(node)
                        await out.progress(_progress(node, update))
        return state, interrupts

    async def _ask(self, interrupts: list[Any], out: Output) -> None:
        text = "\n".join(shown(_question(each.value)) for each in interrupts)
        asked = [{"id": each.id, "value": _json(each.value)} for each in interrupts]
        metadata = {KEY: [each.id for each in interrupts]}
        await out.ask(text, {"interrupts": asked}, metadata=metadata)

    async def _publish(self, state: Any, out: Output) -> None:
        if self._output is not None:
            await out.whole("result", self._output(state))
            return
        messages = _get(state, "messages")
        if messages:
            text = _text(messages[-1])
            if text not in out.texts.values():
                await out.whole("result", text)
        elif not out.texts and state is not None:
            await out.whole("result", _json(state))


class _Texts:
    """One artifact per node; a second message at the same time gets one of its own."""

    def __init__(self, out: Output, nodes: frozenset[str] | None) -> None:
        self._out = out
        self._nodes = nodes
        #: Message id -> artifact, of messages whose node has not finished.
        self._open: dict[str, tuple[str, str]] = {}

    async def take(self, chunk: Any, about: Mapping[str, Any]) -> None:
        node = str(about.get("langgraph_node", "answer"))
        if not str(getattr(chunk, "type", "")).startswith(("ai", "AI")):
            return
        if self._nodes is not None and node not in self._nodes:
            return
        text, key = _text(chunk), str(chunk.id)
        if not text:
            return
        new = key not in self._open
        if new:
            taken = {artifact for _, artifact in self._open.values()}
            number, artifact = 1, node
            while artifact in taken:
                number += 1
                artifact = f"{node}-{number}"
            self._open[key] = (node, artifact)
        await self._out.token(self._open[key][1], text, new=new)

    def end(self, node: str) -> None:
        self._open = {key: (of, at) for key, (of, at) in self._open.items() if of != node}


def _progress(node: str, update: Any) -> str:
    messages: list[Any] = _listed(_get(update, "messages"))
    calls = [call for each in messages for call in _listed(getattr(each, "tool_calls", None))]
    if calls:
        return "; ".join(f"calling {call['name']} {shown(call['args'])}" for call in calls)
    results = [each for each in messages if getattr(each, "type", "") == "tool"]
    if results:
        return "; ".join(f"{each.name}: {shown(_text(each))}" for each in results)
    return f"{node} is done"


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _get(state: Any, name: str) -> Any:
    return cast("Any", state).get(name) if isinstance(state, dict) else getattr(state, name, None)


def _text(message: Any) -> str:
    text = getattr(message, "text", "")
    return str(text() if callable(text) and not isinstance(text, str) else text)


def _question(value: Any) -> Any:
    """What a person reads of an interrupt's value: its question, where it is a dictionary with one."""
    if isinstance(value, dict):
        data = cast("dict[str, Any]", value)
        return next((data[name] for name in ("question", "message", "query") if name in data), data)
    return value


def _asked(context: RequestContext) -> frozenset[str]:
    """Ids of the interrupts this run's message answers."""
    task = context.current_task
    if task is None or not is_answer(context) or KEY not in task.metadata:
        return frozenset()
    return frozenset(str(each) for each in cast("Any", task.metadata[KEY]))


def _by_id(answer: Any, asked: frozenset[str]) -> Mapping[str, Any] | None:
    """The answer as one for each interrupt it names; None when it names none and is for all."""
    if not isinstance(answer, dict):
        return None
    given = cast("dict[str, Any]", answer)
    return given if given.keys() & asked else None


def _json(value: Any) -> Any:
    """JSON of a state or a question.

    Raises
    ------
    PermanentFailure
        Something in it has no JSON.
    """
    pydantic = require("pydantic_core", "langgraph")
    try:
        return pydantic.to_jsonable_python(value)
    except pydantic.PydanticSerializationError as error:
        raise PermanentFailure(
            f"a value of the graph has no JSON ({error}): pass output=, or interrupt with plain data"
        ) from error
