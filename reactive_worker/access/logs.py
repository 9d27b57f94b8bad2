"""Log lines a person can follow, or JSON lines for a collector. On standard error, always."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from reactive_worker.access.redaction import redact

#: What every LogRecord has; anything else came in through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Chatty below WARNING: one line for each request or frame.
_CHATTY = ("httpx", "httpcore", "hpack", "websockets", "uvicorn", "a2a", "asyncio")


class PlainFormatter(logging.Formatter):
    """``12:00:01.250  INFO     session         worker host-1 is registered ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        name = record.name.removeprefix("reactive_worker.")
        line = f"{moment}  {record.levelname:<7}  {name:<14}  {record.getMessage()}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        if record.stack_info:
            line = f"{line}\n{record.stack_info}"
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was passed as `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return redact(json.dumps(fields, default=str, ensure_ascii=False))


def log_by_default(level: str) -> None:
    """Show our own lines on standard error, as the command line does, unless the program has set up logging.

    A worker that says nothing looks like one that hangs; Python's own default shows warnings only.

    Parameters
    ----------
    level:
        DEBUG, INFO, WARNING or ERROR.
    """
    ours = logging.getLogger("reactive_worker")
    if ours.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter())
    ours.addHandler(handler)
    ours.setLevel(level.upper())


def configure(level: str, format: Literal["text", "json"] = "text") -> None:
    """Send the root logger to standard error.

    Parameters
    ----------
    level:
        DEBUG, INFO, WARNING or ERROR.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level.upper() != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        # realtime-py logs an error for each refused join; our link says it better, once, and goes on.
        logging.getLogger("realtime").setLevel(logging.CRITICAL)
