"""What a request identifies itself with: the project's API key, and the token that says who is asking.

They are one thing for a service role key. They are two for a worker with a token of its own and for a
signed-in user: the gateway wants a key of the project in `apikey`, the database's role comes from the token.
A token may change while we run (a user's session is refreshed, a mounted file rewritten), so it is asked for,
never kept.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from reactive_worker.access.redaction import guard_library_logs, keep_secret
from reactive_worker.access.tokens import TokenFacts, read_token
from reactive_worker.errors import ConfigurationError

logger = logging.getLogger(__name__)


class Credentials:
    """An API key, and the token that is valid now.

    Parameters
    ----------
    apikey:
        A key of the project: publishable, secret, anon or service role.
    token:
        Says who is asking: a JWT, or a function that returns the current one. Without it the key says so.

    Example
    -------
    >>> Credentials("a-project-key").headers()["Authorization"]
    'Bearer a-project-key'
    """

    def __init__(self, apikey: str, token: str | Callable[[], str] | None = None) -> None:
        self.apikey = apikey
        self._token = token
        # Whoever has a key has it in a URL or a header soon.
        keep_secret(apikey, *([token] if isinstance(token, str) else []))
        guard_library_logs()

    @classmethod
    def of(cls, key: str | Credentials) -> Credentials:
        """`key` itself, or a plain key as credentials."""
        return key if isinstance(key, Credentials) else cls(key)

    def token(self) -> str:
        """The token to send now. Raises ConfigurationError when it is in a file that cannot be read."""
        if self._token is None:
            return self.apikey
        return self._token if isinstance(self._token, str) else self._token()

    def headers(self) -> dict[str, str]:
        """The two headers of a request to PostgREST."""
        return {"apikey": self.apikey, "Authorization": f"Bearer {self.token()}"}

    def facts(self) -> TokenFacts | None:
        """What the token says about itself; None for a key that is no JWT."""
        return read_token(self.token())

    def __repr__(self) -> str:
        return f"<Credentials: {self.facts() or 'a key of the project'}>"


class TokenFile:
    """A token in a file, read again whenever the file has changed: mounted secrets are renewed like that.

    Parameters
    ----------
    path:
        The file; blanks around the token do not count. While it cannot be read, the last token stays.

    Example
    -------
    >>> TokenFile("/run/secrets/worker-token")()  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()  # the heartbeat's thread asks, too
        self._seen: tuple[int, int, int] | str | None = "never"
        self._token = ""

    def __call__(self) -> str:
        """The token in the file now; raises ConfigurationError when there never was one."""
        with self._lock:
            seen = _stamp(self._path)
            if seen != self._seen:
                try:
                    self._token = read_secret_file(self._path)
                except ConfigurationError as error:
                    if not self._token:
                        raise
                    # Half-way rewritten, or gone: the server is the judge of the token we have.
                    logger.warning("the worker token is not renewed: %s", error)
                self._seen = seen
            return self._token


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def read_secret_file(path: Path) -> str:
    """The one secret a file holds; raises ConfigurationError when it is empty, unreadable or no text."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    if not text:
        raise ConfigurationError(f"{path} is empty; it must hold one key or token")
    keep_secret(text)
    return text
