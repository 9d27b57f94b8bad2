"""The demo as a person sees it: lines as things happen, a status line below them, a table and a picture."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.styled import Styled, status
from reactive_worker.cli.text import duration, short
from reactive_worker.models import Todo

_BAR = 24
#: Columns from which the picture of the stream has room for everything.
_ROOMY = 112


@dataclass(slots=True)
class Shown:
    """One task of the demo, as far as it is known."""

    number: int
    title: str
    priority: int
    id: str
    #: Who offered it first: ``realtime`` or ``sweep``.
    source: str = ""
    state: str = "waiting"
    events: int = 0
    todo: Todo | None = None


@dataclass(slots=True)
class DemoView:
    """Prints the demo's progress; with `--json`, one object for each line."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    tasks: dict[str, Shown] = field(default_factory=dict[str, Shown])

    def add(self, id: str, title: str, priority: int) -> None:
        """A task was submitted."""
        shown = self.tasks[id] = Shown(len(self.tasks) + 1, title, priority, id)
        self.line("submitted", f"{short(title, 40)}  (priority {priority})", shown)

    def offered(self, id: str, source: str) -> None:
        """Somebody told the worker about a task; only the first counts."""
        shown = self.tasks.get(id)
        if shown is not None and not shown.source:
            shown.source = source
            how = "Realtime pushed it" if source == "realtime" else "the sweep found it"
            self.line(source, how, shown)

    def said(self, id: str, event_type: str, message: str | None) -> None:
        """An executor said something."""
        shown = self.tasks.get(id)
        if shown is None:
            return
        shown.events += 1
        ended = event_type in ("task_completed", "task_failed", "task_cancelled", "task_rejected")
        shown.state = "done" if ended else "running"
        # The keywords are a data part: nothing in it is text.
        said = message or ("(data)" if event_type == "task_artifact" else "")
        self.line(event_type.removeprefix("task_"), said, shown)

    def line(self, what: str, text: str, shown: Shown | None = None) -> None:
        """One line: seconds since the start, task, what happened."""
        seconds = time.monotonic() - self.began
        if self.console.json:
            task = {} if shown is None else {"task": shown.number, "id": shown.id}
            self.console.emit({"at": round(seconds, 3), "what": what, "text": text, **task})
            return
        number = "" if shown is None else f"#{shown.number}"
        styles = {"realtime": "magenta", "sweep": "cyan", "completed": "green", "failed": "red"}
        said = short(text, self.console.columns(112) - 29)
        self._clear()
        self.console.say(
            f"{seconds:7.2f} s  {number:>3}  ",
            Styled(styles.get(what, "dim"), f"{what:<10}" if said else what),
            f"  {said}" if said else "",
        )
        self._status()

    def finish(self) -> None:
        """No more lines: remove the status line."""
        self._clear()

    def _counts(self) -> Counter[str]:
        return Counter(shown.state for shown in self.tasks.values())

    def _status(self) -> None:
        if self.console.is_terminal and self.tasks:
            counts = self._counts()
            parts = [f"{counts[state]} {state}" for state in ("waiting", "running", "done")]
            self.console.stream(f"           {'   '.join(parts)}")

    def _clear(self) -> None:
        if self.console.is_terminal:
            sys.stdout.write("\r\x1b[2K")

    def results(self) -> None:
        """The table of tasks, and what each result says."""
        ended = [shown for shown in self.tasks.values() if shown.todo is not None]
        self.console.say()
        self.console.table(
            ("task", "prio", "text", "told by", "picked up", "ran", "events", "status", "result"),
            (
                (
                    f"#{shown.number}",
                    str(shown.priority),
                    short(shown.title, 28),
                    shown.source or "-",
                    duration(pickup(shown.todo)),
                    duration(_ran(shown.todo)),
                    str(shown.events),
                    status(shown.todo.agent_status),
                    short(_said_last(shown.todo), 44),
                )
                for shown in ended
                if shown.todo is not None
            ),
            optional=("events", "ran", "told by", "prio"),
        )
        self.console.say()
        for shown in ended:
            self.console.say(Styled("bold", short(shown.title, 60)))
            for sentence in _text(shown.todo).splitlines()[:3]:
                self.console.say(f"  {short(sentence, self.console.columns(110) - 2)}")

    def picture(self, events_stored: int) -> None:
        """The stream with its figures."""
        told = Counter(shown.source for shown in self.tasks.values())
        done = sum(1 for s in self.tasks.values() if s.todo and s.todo.agent_status == "completed")
        most = max(1, *told.values()) if told else 1
        wide = self.console.columns(_ROOMY) >= _ROOMY
        length = _BAR if wide else _BAR // 3
        for name, corner, colour in (("realtime", "┐", "magenta"), ("sweep", "┘", "cyan")):
            count = told[name]
            bar = "━" * max(1 if count else 0, count * length // most)
            rest = f"{'─' * (length + 1 - len(bar))}{corner}"
            self.console.say(f"  {name:<9}{count:>3}  ", Styled(colour, bar), rest)
            if name == "realtime":
                events = f" ─▶ {events_stored} events" if wide else ""
                middle = f"├─▶ dedupe ─▶ prioritise ─▶ dispatch ─▶ {done} completed{events}"
                self.console.say(" " * (9 + 2 + 3 + 2 + length + 1) + middle)
        self.console.say()


def pickup(todo: Todo | None) -> float | None:
    """Seconds from the row's insert to its claim, by the database's clock."""
    if todo is None or todo.started_at is None:
        return None
    return (todo.started_at - todo.created_at).total_seconds()


def _ran(todo: Todo | None) -> float | None:
    if todo is None or todo.started_at is None or todo.completed_at is None:
        return None
    return (todo.completed_at - todo.started_at).total_seconds()


def _output(todo: Todo | None) -> dict[str, Any]:
    output: Any = todo.agent_output if todo is not None else None
    return output if isinstance(output, dict) else {}  # pyright: ignore[reportUnknownVariableType] - any JSON


def _said_last(todo: Todo | None) -> str:
    message: Any = _output(todo).get("message") or {}
    return " ".join(str(part.get("text", "")) for part in message.get("parts", []))


def _text(todo: Todo | None) -> str:
    """The digest: the text of the artifact of that name."""
    artifacts: Sequence[Any] = _output(todo).get("artifacts") or []
    for artifact in artifacts:
        if artifact.get("artifactId") == "digest":
            return "".join(str(part.get("text", "")) for part in artifact.get("parts", []))
    return str(_output(todo).get("text", ""))
