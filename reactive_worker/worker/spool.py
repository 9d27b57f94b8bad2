"""What could not be delivered at shutdown, kept in files and delivered, fenced, at the next start."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from reactive_worker.errors import ConfigurationError, ReactiveWorkerError
from reactive_worker.models import Outcome, TodoEvent

logger = logging.getLogger(__name__)

SUFFIX = ".spool.json"


class Spool:
    """A directory of undelivered batches, one file a batch, named in the order they were said.

    Parameters
    ----------
    directory:
        Made if it does not exist; readable by this user only, as results may be confidential.

    Raises
    ------
    ConfigurationError
        The directory cannot be made or written.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the spool directory {directory}: {error.strerror}"
            ) from error
        if not os.access(self.directory, os.W_OK):
            raise ConfigurationError(f"cannot write to the spool directory {directory}")
        self._count = 0

    def write(self, worker_id: str, batch: Sequence[TodoEvent]) -> Path:
        """Keep a numbered batch; it is on disk when this returns."""
        self._count += 1
        path = self.directory / f"{worker_id}-{self._count:06}{SUFFIX}"
        content = {"worker_id": worker_id, "events": [_event_json(event) for event in batch]}
        # Written aside and renamed: a crash in the middle leaves no half file under the final name.
        partial = path.with_suffix(f".{uuid.uuid4().hex}.part")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        # The name must survive a power cut as well as what stands in the file.
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path

    def batches(self) -> list[tuple[Path, str, list[TodoEvent]]]:
        """Kept batches as ``(file, worker id, events)``, in order; unreadable ones stay and are logged."""
        found: list[tuple[Path, str, list[TodoEvent]]] = []
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            try:
                content = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
                events = [_event(row) for row in content["events"]]
                found.append((path, str(content["worker_id"]), events))
            except (OSError, ValueError, KeyError, TypeError, ReactiveWorkerError) as error:
                logger.error("spooled file %s cannot be read and stays where it is: %s", path, error)
        return found


def _event_json(event: TodoEvent) -> dict[str, Any]:
    row = asdict(event)
    row.pop("created_at")
    return row


def _event(row: dict[str, Any]) -> TodoEvent:
    outcome = row.pop("outcome")
    return TodoEvent(**row, outcome=None if outcome is None else Outcome(**outcome))
