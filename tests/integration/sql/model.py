"""What the tables should hold: a small model in plain Python of tasks, workers and who may write.

Times are seconds of the moved clock. The model knows nothing of SQL, locks or batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

LEASE = 10.0
HELD = "in_progress"
ENDED = ("completed", "failed", "cancelled")
END_EVENT = {"completed": "task_completed", "failed": "task_failed", "cancelled": "task_cancelled"}


@dataclass
class Worker:
    lease_until: float
    alive_since: float


@dataclass
class Task:
    priority: int
    max_failures: int
    available_at: float
    status: str = "pending"
    attempt: int = 0
    failures: int = 0
    worker: str | None = None
    cancel: bool = False
    #: The worker it was lost with.
    suspect: str | None = None
    #: How many may be in flight where it runs, while it is a suspect.
    company: int = 0
    #: The worker that makes room for it.
    reserved: str | None = None
    log: list[str] = field(default_factory=list[str])

    def end(self, status: str) -> None:
        self.status = status
        self.log.append(END_EVENT[status])

    def back(self, event: str, at: float) -> None:
        self.status, self.worker, self.available_at = "pending", None, at
        self.log.append(event)


class Model:
    """The rules of the queue, one method for each function."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tasks: dict[str, Task] = {}
        self.workers: dict[str, Worker] = {}

    # -- workers -----------------------------------------------------------------------------------

    def lives(self, worker: str) -> bool:
        found = self.workers.get(worker)
        return found is not None and found.lease_until > self.now

    def register(self, worker: str) -> None:
        if not self.lives(worker):
            self._lose_all([worker])
            self.workers[worker] = Worker(self.now + LEASE, self.now)
        self.workers[worker].lease_until = self.now + LEASE

    def heartbeat(self, worker: str) -> bool:
        found = self.workers.get(worker)
        if found is None:
            return False
        if found.lease_until <= self.now:
            found.alive_since = self.now
        found.lease_until = self.now + LEASE
        return True

    def unregister(self, worker: str) -> int:
        self.workers.pop(worker, None)
        return sum(self._release(task) for task in self.held_by(worker))

    def sweep(self, worker: str) -> int:
        gone = {str(task.worker) for task in self.tasks.values() if task.status == HELD} - set(self.workers)
        dead: list[str] = []
        me = self.workers.get(worker)
        for id, found in list(self.workers.items()):
            if id == worker or found.lease_until > self.now or me is None or me.lease_until <= self.now:
                continue
            if me.alive_since <= found.lease_until or me.alive_since <= self.now - LEASE / 3:
                dead.append(id)
                del self.workers[id]
        lost = self._lose_all(dead) + self._lose_all(gone)
        for task in self.tasks.values():
            if task.status in ENDED:
                task.suspect = task.reserved = None
        return lost

    def candidates(self) -> list[str]:
        due = [
            id
            for id, task in self.tasks.items()
            if task.status == "pending" and task.available_at <= self.now
        ]
        return sorted(due, key=lambda id: (-self.tasks[id].priority, self.tasks[id].available_at, id))

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, worker: str, ids: Iterable[str], want: int) -> list[str]:
        """Suspects run in smaller company; see SUSPECTS in the migrations."""
        offered = list(ids)
        held = self.held_by(worker)
        company = min((task.company for task in held if task.suspect), default=1000)
        want = max(0, min(want, company - len(held)))
        if company <= len(held):
            return []
        suspects = [id for id in offered if self.tasks[id].suspect and self._due(id)]
        reserved = [id for id in suspects if self.tasks[id].reserved == worker][:1]
        suspects.sort(key=lambda id: id not in reserved)
        for id, task in self.tasks.items():
            if task.reserved == worker and id not in reserved:
                task.reserved = None
        ordinary = [id for id in offered if id not in suspects]
        if not suspects:
            return self._take(worker, ordinary, want)
        if not reserved and (taken := self._take(worker, offered[: offered.index(suspects[0])], want)):
            return taken
        fits: list[str] = []
        for id in suspects:
            if len(fits) < want and len(held) + len(fits) < min(company, self.tasks[id].company):
                company = min(company, self.tasks[id].company)
                fits.append(id)
        if fits:
            return self._take(worker, fits, want)
        if reserved:
            return []
        makers = [
            task
            for task in self.tasks.values()
            if task.suspect and task.reserved and self.lives(task.reserved)
        ]
        free = [id for id in suspects if not self.lives(self.tasks[id].reserved or "")]
        if free and len(makers) < max(1, sum(map(self.lives, self.workers)) // 2):
            self.tasks[free[0]].reserved = worker
            return []
        return self._take(worker, ordinary, want)

    def _due(self, id: str) -> bool:
        task = self.tasks[id]
        return task.status == "pending" and task.available_at <= self.now

    def _take(self, worker: str, ids: Iterable[str], want: int) -> list[str]:
        claimed: list[str] = []
        for id in ids:
            task = self.tasks[id]
            if len(claimed) < want and self._due(id):
                task.reserved = None
                task.status, task.worker, task.attempt = HELD, worker, task.attempt + 1
                task.log.append("task_started")
                claimed.append(id)
        return claimed

    def holds(self, id: str, worker: str, attempt: int) -> bool:
        task = self.tasks[id]
        return (task.status, task.worker, task.attempt) == (HELD, worker, attempt)

    def held_by(self, worker: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.status == HELD and task.worker == worker]

    def finish(self, id: str, kind: str, wait: float, counts: bool) -> None:
        task = self.tasks[id]
        task.suspect = task.reserved = None
        if task.cancel and kind in ("retry", "input_required"):
            task.end("cancelled")
        elif kind == "input_required":
            task.status, task.worker = kind, None
            task.log.append("task_input_required")
        elif kind == "retry":
            task.failures += counts
            if counts and task.failures >= task.max_failures:
                task.end("failed")
            else:
                task.back("task_retrying", self.now + wait)
        else:
            task.end(kind)

    def release(self, id: str) -> None:
        self._release(self.tasks[id])

    def _release(self, task: Task) -> int:
        task.reserved = None
        if task.cancel:
            task.end("cancelled")
        else:
            task.back("task_released", self.now)
        return 1

    def _lose_all(self, workers: Iterable[str]) -> int:
        """Who is lost alone counts a failure, and clears those it was once lost with; others are suspects."""
        held = {worker: self.held_by(worker) for worker in workers}
        alone = [tasks[0] for tasks in held.values() if len(tasks) == 1]
        together = [task for tasks in held.values() if len(tasks) > 1 for task in tasks]
        groups = {task.suspect for task in alone if task.suspect}
        for task in self.tasks.values():
            if task.suspect in groups and task not in alone:
                task.suspect = task.reserved = None
        for task in alone:
            self._lose(task)
        for task in together:
            if task.cancel:
                task.end("cancelled")
            else:
                self._blame(task, max(1, len(held[str(task.worker)]) // 2))
                task.back("task_lost", self.now)
        return len(alone) + len(together)

    def _blame(self, task: Task, company: int) -> None:
        task.company = min(task.company, company) if task.suspect else company
        task.suspect, task.reserved = task.worker, None

    def _lose(self, task: Task) -> None:
        if task.cancel:
            task.end("cancelled")
            return
        task.failures += 1
        if task.failures >= task.max_failures:
            task.log.append("task_lost")
            task.end("failed")
        else:
            self._blame(task, 1)
            wait = 0 if task.failures == 1 else 2 ** (task.failures - 2)
            task.back("task_lost", self.now + wait)

    # -- people ------------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        task = self.tasks[id]
        if task.status in ENDED:
            return task.status == "cancelled"
        if task.status in ("pending", "input_required"):
            task.worker = None
            task.end("cancelled")
        task.cancel = True
        return True

    def retry(self, id: str) -> bool:
        task = self.tasks[id]
        if task.status not in ("failed", "cancelled"):
            return False
        task.back("task_retried", self.now)
        task.failures, task.cancel = 0, False
        return True

    def answer(self, id: str) -> bool:
        task = self.tasks[id]
        if task.status != "input_required":
            return False
        task.back("message_received", self.now)
        task.failures = 0
        return True

    def gone(self, ids: Collection[str], claimed: Collection[str]) -> set[str]:
        return {id for id in ids if id not in claimed and self.tasks[id].status != "pending"}
