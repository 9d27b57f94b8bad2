"""A task's answer, printed while it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_worker.cli.console import Console
from reactive_worker.cli.task_view import say_result
from reactive_worker.cli.text import list_of, object_of, text_of

if TYPE_CHECKING:
    from reactive_worker.models import Todo, TodoEvent

#: A run that ends like this begins again, and so does its answer.
_AGAIN = frozenset({"task_retrying", "task_lost", "task_released", "task_retried"})


class ResultStream:
    """Prints the text of artifacts as it is written.

    Standard output gets the answer only; that a run failed and begins again is said on standard error.

    Parameters
    ----------
    console:
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._texts: dict[str, str] = {}
        self._current = ""
        self._line_is_open = False
        #: `seq` of the newest event that was heard.
        self.last = 0

    def hear(self, event: TodoEvent) -> None:
        """One event of the task's log, in order."""
        self.last = event.seq or self.last
        if event.event_type == "task_artifact":
            self._artifact(object_of(event.event_data.get("artifactUpdate")))
        elif event.event_type in _AGAIN:
            self._end_line()
            self._texts.clear()
            what = event.event_type.removeprefix("task_")
            self._console.note(f"{what}: {event.message}" if event.message else what)

    def finish(self, todo: Todo) -> None:
        """The task has ended or asks something: print what has not been printed."""
        self._end_line()
        text = text_of(todo.agent_output, "text")
        streamed = list(self._texts.values())
        if todo.agent_status == "completed" and text and text in ("".join(streamed), "\n".join(streamed)):
            return
        say_result(self._console, todo)

    def _artifact(self, update: dict[str, Any]) -> None:
        artifact = object_of(update.get("artifact"))
        name = text_of(artifact, "artifactId")
        text = "".join(text_of(part, "text") for part in list_of(artifact.get("parts")))
        if not text:
            return
        append = bool(update.get("append"))
        if name != self._current or not append:
            self._end_line()
        self._current = name
        self._texts[name] = self._texts.get(name, "") + text if append else text
        self._console.stream(text)
        self._line_is_open = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._line_is_open:
            self._console.stream("\n")
            self._line_is_open = False
