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

from reactive_worker.errors import ConfigurationError
from reactive_worker.models import Outcome, TodoEvent

logger = logging.getLogger(__name__)

SUFFIX = ".spool.json"
#: Put behind the name of a file that cannot be read: it is kept for a person, and looked at no more.
ASIDE = ".unreadable"
#: What a file says it is; a file of another version is left to the program that wrote it.
VERSION = 1


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
        events = [_event_json(event) for event in batch]
        content = {"version": VERSION, "worker_id": worker_id, "events": events}
        # Written aside and renamed: a crash in the middle leaves no half file under the final name.
        partial = path.with_suffix(f".{uuid.uuid4().hex}.part")
        # Results may be confidential, and the directory may be one that others can read.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
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
        """Kept batches as ``(file, worker id, events)``, in order.

        A file that cannot be read (half of it, no JSON, nested too deeply, of another version) is set aside
        under another name, with one line in the log; the others are delivered all the same.
        """
        found: list[tuple[Path, str, list[TodoEvent]]] = []
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            try:
                found.append((path, *_batch(path)))
            except FileNotFoundError:
                continue  # Another worker with this spool has delivered it.
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                self._set_aside(path, error)
        return found

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(path.name + ASIDE)
        why = f"{type(error).__name__}: {error}"
        try:
            path.rename(aside)
        except OSError as problem:
            logger.error("spooled file %s cannot be read (%s), nor renamed (%s)", path, why, problem)
        else:
            logger.error("spooled file %s cannot be read (%s); it is kept as %s", path, why, aside.name)


def _batch(path: Path) -> tuple[str, list[TodoEvent]]:
    content = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    # Files of 0.1 say no version.
    version = content.get("version", VERSION)
    if version != VERSION:
        raise ValueError(f"it is of version {version!r}, and this program reads version {VERSION}")
    return str(content["worker_id"]), [_event(row) for row in content["events"]]


def _event_json(event: TodoEvent) -> dict[str, Any]:
    row = asdict(event)
    row.pop("created_at")
    return row


def _event(row: dict[str, Any]) -> TodoEvent:
    outcome = row.pop("outcome")
    return TodoEvent(**row, outcome=None if outcome is None else Outcome(**outcome))
