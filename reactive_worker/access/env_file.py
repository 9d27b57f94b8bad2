"""Reading a `.env` file, strictly."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from reactive_worker.errors import ConfigurationError

#: Where python-dotenv says which lines it skipped: its only word about them.
_SAYS = logging.getLogger("dotenv.main")


def read_env_file(path: str | Path | None = None) -> dict[str, str]:
    """Read a `.env` file; a file that was asked for must exist, and every line must parse.

    python-dotenv only logs lines it cannot parse; a key that silently went missing costs an hour, so a
    malformed line is an error here.

    Parameters
    ----------
    path:
        The file; by default `.env` in the current directory, if it exists.

    Raises
    ------
    ConfigurationError
        It is not there, cannot be read, or has a line that is no setting; the message says which.

    Example
    -------
    >>> read_env_file("nowhere.env")
    Traceback (most recent call last):
    reactive_worker.errors.ConfigurationError: no such env file: nowhere.env
    """
    chosen = Path(path) if path is not None else Path(".env")
    if not chosen.exists():
        if path is not None:
            raise ConfigurationError(f"no such env file: {chosen}")
        return {}
    try:
        text = chosen.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{chosen} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {chosen}: {error.strerror}") from None
    from dotenv import dotenv_values

    with _skipped_lines() as skipped:
        values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    if skipped:
        raise ConfigurationError(f"{chosen}, line {skipped[0]}: cannot read this line; expected NAME=value")
    for name, value in values.items():
        if value is None:
            raise ConfigurationError(f"{chosen}: {name} has no value; expected NAME=value")
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def _skipped_lines() -> Generator[list[object]]:
    """The numbers of the lines that python-dotenv complains of meanwhile."""
    lines: list[object] = []

    def note(record: logging.LogRecord) -> bool:
        lines.extend(record.args if isinstance(record.args, tuple) else ())
        return False  # said better by the error

    before, disabled = _SAYS.level, logging.root.manager.disable
    _SAYS.addFilter(note)
    # A program that is quiet must not make us deaf.
    _SAYS.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    try:
        yield lines
    finally:
        logging.disable(disabled)
        _SAYS.setLevel(before)
        _SAYS.removeFilter(note)
