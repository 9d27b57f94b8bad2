"""Recorded frames and our own, compared by connection and topic, without what differs from run to run."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.integration.realtime.harness import Frame, normal
from tests.integration.realtime.replay import Replay


@dataclass
class Difference:
    """A place where we differ on purpose."""

    reason: str
    #: Which frames of the recording, or of ours, are left out of the comparison.
    applies: Callable[[str, Frame], bool]


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
#: Keys whose values are of the moment.
_MOMENTARY = {"at", "created_at", "phx_ref", "phx_ref_prev"}
#: Where strings are cut in the recordings.
_LONGEST = 1000


class Normaliser:
    """Takes out of frames what differs from run to run: ids, times, tokens' ages.

    Ids of bindings are numbered by first appearance; keys keep their order.
    """

    def __init__(self, statements: Iterable[str]) -> None:
        self._known = "\n".join(statements)
        self._ids: dict[int, int] = {}

    def frame(self, version: str, frame: Any) -> Any:
        if isinstance(frame, dict) and "binary_hex" in frame:
            text = bytes.fromhex(frame["binary_hex"]).decode("latin-1")
            return {"binary": _UUID.sub("<uuid>", text)}
        if isinstance(frame, list):
            frame = normal(version, json.dumps(frame))
        return self._value(frame, "")

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            items = [(self._key(name), self._value(item, name)) for name, item in value.items()]
            # Only what PostgreSQL wrote has an order worth comparing.
            return items if key in ("record", "old_record") else dict(items)
        if isinstance(value, list):
            if key == "ids":
                return sorted(self._value(item, "id") for item in value)
            return [self._value(item, key if key == "id" else "") for item in value]
        if key in _MOMENTARY and value is not None:
            return f"<{key}>"
        if key == "id" and isinstance(value, int) and value > 1_000_000:
            return self._ids.setdefault(value, len(self._ids))
        if key == "commit_timestamp" and value is not None:
            assert _TIMESTAMP.fullmatch(value), value
            return "<time>"
        return self._text(value) if isinstance(value, str) else value

    def _key(self, name: str) -> str:
        return "<uuid>" if _UUID.fullmatch(name) else name

    def _text(self, text: str) -> str:
        if _UUID.fullmatch(text):
            # Ids the statements name are compared, made-up ones are not.
            return text if text in self._known or text.startswith("00000000-0000") else "<uuid>"
        if len(text) > _LONGEST:
            return f"<{len(text)} characters>"
        return re.sub(r"expired \d+ seconds", "expired N seconds", text)


def compared(replay: Replay, versions: dict[str, str], differences: Iterable[Difference]) -> tuple[Any, Any]:
    """Recorded and own frames, by connection and topic, in order.

    Broadcasts and presence changes are lists of their own: they pass by the channel, and so come before or
    after its other frames.
    """
    listed = list(differences)

    def grouped(by_conn: dict[str, list[Frame]]) -> dict[tuple[str, str, str], list[Any]]:
        normaliser = Normaliser(replay.statements)
        found: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
        # Same order of connections on both sides, as ids are numbered by first appearance.
        for conn in sorted(by_conn):
            for raw in by_conn[conn]:
                frame = normaliser.frame(versions.get(conn, "1.0.0"), raw)
                if any(difference.applies(conn, frame) for difference in listed):
                    continue
                if "binary" in frame:
                    key = (conn, "", "broadcast")
                else:
                    apart = frame["event"] in ("broadcast", "presence_diff")
                    key = (conn, frame["topic"], frame["event"] if apart else "")
                found[key].append(frame)
        return dict(found)

    conns = set(replay.actual) | set(replay.expected)
    expected = {conn: replay.expected.get(conn, []) for conn in conns}
    return grouped(expected), grouped({conn: replay.actual.get(conn, []) for conn in conns})
