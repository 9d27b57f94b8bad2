"""The queue as executors of all ages use it: awaited or not, from coroutines and threads, with and without
room."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from a2a.server.events import EventQueue
from a2a.types import TaskState

from reactive_worker.errors import LeaseLostError
from reactive_worker.execution import TodoEventQueue
from reactive_worker.models import TodoEvent
from tests.unit.execution.fakes import artifact, make_todo, status
from tests.unit.execution.virtual_time import virtual_time

WORKING = TaskState.TASK_STATE_WORKING


def make_queue(events: list[TodoEvent], **options: Any) -> TodoEventQueue:
    return TodoEventQueue(make_todo(), events.append, **options)


@virtual_time
async def test_it_is_a_real_event_queue() -> None:
    assert isinstance(make_queue([]), EventQueue)


@virtual_time
async def test_an_event_is_recorded_by_the_call_awaited_or_not() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    queue.enqueue_event(status(WORKING, "one"))  # pyright: ignore[reportUnusedCoroutine]
    assert [event.message for event in events] == ["one"]
    await queue.enqueue_event(status(WORKING, "two"))
    assert [event.message for event in events] == ["one", "two"]
    gc.collect()  # A coroutine that was never awaited would warn here, and warnings are errors.


@virtual_time
async def test_what_it_returns_serves_everything_that_takes_a_coroutine() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    await asyncio.create_task(queue.enqueue_event(status(WORKING, "task")))
    await asyncio.wait_for(queue.enqueue_event(status(WORKING, "wait_for")), 1)
    await asyncio.gather(*(queue.enqueue_event(status(WORKING, f"gather {n}")) for n in range(2)))
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.enqueue_event(status(WORKING, "group")))
    queue.enqueue_event(status(WORKING, "closed")).close()
    assert [event.message for event in events] == [
        "task",
        "wait_for",
        "gather 0",
        "gather 1",
        "group",
        "closed",
    ]


@virtual_time
async def test_awaiting_waits_while_there_is_no_room() -> None:
    events: list[TodoEvent] = []
    room = asyncio.Event()
    queue = make_queue(events, gate=room.wait)
    waiting = asyncio.create_task(queue.enqueue_event(status(WORKING, "x")))
    await asyncio.sleep(100)
    # The event is not lost meanwhile, only its publisher is slowed down.
    assert len(events) == 1
    assert not waiting.done()
    room.set()
    await waiting


@virtual_time
async def test_a_cancelled_wait_for_room_keeps_the_event() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events, gate=asyncio.Event().wait)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.enqueue_event(status(WORKING, "x")), 5)
    assert len(events) == 1


@virtual_time
async def test_a_tight_loop_lets_others_run() -> None:
    queue = make_queue([])
    ticks = 0

    async def other() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(other())
    for _ in range(200):
        await queue.enqueue_event(status(WORKING))
    ticking.cancel()
    assert ticks >= 3


@virtual_time
async def test_after_a_lost_lease_publishing_raises() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    queue.lose("gone")
    with pytest.raises(LeaseLostError, match="gone"):
        queue.enqueue_event(status(WORKING))  # pyright: ignore[reportUnusedCoroutine]
    assert events == []


@virtual_time
async def test_a_lease_lost_while_waiting_for_room_raises_there() -> None:
    room = asyncio.Event()
    queue = make_queue([], gate=room.wait)
    waiting = asyncio.create_task(queue.enqueue_event(status(WORKING)))
    await asyncio.sleep(1)
    queue.lose("gone")
    room.set()
    with pytest.raises(LeaseLostError):
        await waiting


@virtual_time
async def test_coroutines_publish_in_the_order_of_their_calls() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    called: list[str] = []

    async def speak(name: str) -> None:
        for number in range(5):
            called.append(f"{name}{number}")
            await queue.enqueue_event(status(WORKING, f"{name}{number}"))
            await asyncio.sleep(0.1 if name == "a" else 0.07)

    await asyncio.gather(speak("a"), speak("b"))
    assert [event.message for event in events] == called


async def test_threads_publish_whole_events_in_one_order() -> None:
    events: list[TodoEvent] = []
    on: set[int] = set()

    def emit(event: TodoEvent) -> None:
        on.add(threading.get_ident())
        events.append(event)

    queue = TodoEventQueue(make_todo(), emit)
    called: list[str] = []
    lock = threading.Lock()

    def speak(name: str) -> None:
        for number in range(50):
            with lock:
                called.append(f"{name}{number}")
                queue.enqueue_event(status(WORKING, f"{name}{number}"))  # pyright: ignore[reportUnusedCoroutine]

    threads = [threading.Thread(target=speak, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    with lock:
        called.append("loop")
        await queue.enqueue_event(status(WORKING, "loop"))
    async with asyncio.timeout(10):
        while len(events) < 151:
            await asyncio.sleep(0.001)
    for thread in threads:
        thread.join()
    assert [event.message for event in events] == called
    assert on == {threading.get_ident()}


async def test_a_thread_with_its_own_loop_waits_for_our_gate() -> None:
    room = asyncio.Event()
    queue = make_queue([], gate=room.wait)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def speak() -> None:
        coroutine = queue.enqueue_event(status(WORKING))
        loop.call_soon_threadsafe(asked.set)
        asyncio.run(coroutine)

    thread = asyncio.create_task(asyncio.to_thread(speak))
    async with asyncio.timeout(10):
        await asked.wait()
        assert not thread.done()
        room.set()
        await thread


async def test_a_thread_may_hand_the_coroutine_to_our_loop() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    loop = asyncio.get_running_loop()

    def speak() -> None:
        for number in range(3):
            event = artifact("a", str(number), append=number > 0)
            asyncio.run_coroutine_threadsafe(queue.enqueue_event(event), loop).result(10)

    await asyncio.to_thread(speak)
    assert [event.message for event in events] == ["0", "1", "2"]


@virtual_time
async def test_a_concluded_run_cannot_be_lost_any_more() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    queue.returned()
    queue.lose("gone")
    await queue.enqueue_event(status(WORKING))  # Dropped, not refused: the run has ended well.
    assert [event.outcome is not None for event in events] == [True]


async def test_what_a_thread_said_is_not_delivered_after_the_lease_was_lost() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    thread = threading.Thread(target=queue.enqueue_event, args=(status(WORKING),))
    thread.start()
    thread.join()  # Recorded, and its delivery is waiting for this loop.
    queue.lose("gone")
    await asyncio.sleep(0)
    assert events == []


async def test_a_thread_may_end_the_run() -> None:
    events: list[TodoEvent] = []
    queue = make_queue(events)
    thread = threading.Thread(target=queue.enqueue_event, args=(status(TaskState.TASK_STATE_COMPLETED),))
    thread.start()
    thread.join()
    queue.returned()
    await asyncio.sleep(0)
    assert [str(event.event_type) for event in events] == ["task_completed"]


@virtual_time
async def test_an_auth_required_is_shown_once_and_leaves_no_timer() -> None:
    events: list[TodoEvent] = []
    loop: Any = asyncio.get_running_loop()
    queue = make_queue(events, auth_hold=5)
    await queue.enqueue_event(status(TaskState.TASK_STATE_AUTH_REQUIRED, "log in"))
    assert events == []
    await asyncio.sleep(6)
    assert len(events) == 1
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


@virtual_time
async def test_returning_with_an_auth_required_takes_its_timer_along() -> None:
    events: list[TodoEvent] = []
    loop: Any = asyncio.get_running_loop()
    queue = make_queue(events, auth_hold=5)
    await queue.enqueue_event(status(TaskState.TASK_STATE_AUTH_REQUIRED, "log in"))
    queue.returned()
    assert len(events) == 1
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
