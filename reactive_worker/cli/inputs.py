"""What commands read from files, standard input and arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reactive_worker.errors import ConfigurationError


def read_text(file: str) -> str:
    """A file's text; raises ConfigurationError saying why not."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8 text") from None


def read_json(option: str, value: str | None) -> Any:
    """An option's JSON, or that of the file after ``@``; raises ConfigurationError naming the option."""
    if value is None:
        return None
    try:
        return json.loads(read_text(value[1:]) if value.startswith("@") else value)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option} is not JSON: {error}") from None


def content(text: str | None, data: str | None) -> Any:
    """What is said to an agent: TEXT, standard input for ``-``, or ``--data JSON``."""
    if (text is None) == (data is None):
        raise ConfigurationError("give either a TEXT or --data JSON")
    if data is not None:
        return read_json("--data", data)
    return sys.stdin.read() if text == "-" else text
