"""What our server says, against what the real one (v2.129.8) was recorded to say."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.integration.realtime.comparison import Difference, compared
from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import Frame
from tests.integration.realtime.replay import LEFTOVERS, Line, Player, load

#: Where we differ from the recordings on purpose. Everything else is equal, but for ids, times and ages.
DIFFERENCES: dict[str, list[Difference]] = {
    "17_presence": [
        Difference(
            "the real server may tell a channel it has just closed of its own departure; ours never does",
            lambda conn, frame: _departure_of_closed(conn, frame),
        ),
        Difference(
            "a frame sent before the client knew its channel was closed: the real server's channel was still"
            " ending and took it without an answer, ours has ended, so there is no such topic",
            lambda conn, frame: frame["payload"].get("response") == {"reason": "unmatched topic"},
        ),
    ],
}


def _departure_of_closed(conn: str, frame: Frame) -> bool:
    if conn != "late" or frame["event"] != "presence_diff" or frame["topic"] != "realtime:pr":
        return False
    return not frame["payload"]["joins"] and "w3" in frame["payload"]["leaves"]


def _elsewhere(line: Line) -> bool:
    """Tenants and paths outside the endpoint are the gateway's business."""
    return line.get("conn") in ("c15", "c16")


SKIPPED = {"02_connect": _elsewhere}


@pytest.mark.parametrize(
    "name",
    [
        "02_connect",
        "03_join_basic_v1",
        "03_join_basic_v2",
        "04_duplicate_join_v1",
        "04_duplicate_join_v2",
        "06_bindings_and_filters",
        "07_bad_bindings",
        "07b_one_bad_binding",
        "08_dml",
        "09_types",
        "10_toast_and_replica_identity",
        "11_rls",
        "12_grants",
        "14_token",
        "15_broadcast_v1",
        "15_broadcast_v2",
        "16_realtime_send",
        "17_presence",
        "18_rest_broadcast",
        "26_channel_limit",
        "27_refused_join_blocks_socket",
    ],
)
async def test_trace(name: str, make_gateway: MakeGateway, writer: psycopg.Connection[Any]) -> None:
    gateway = make_gateway(timings=QUICK)
    gateway.faults.join_refusal_delay = 0.02
    writer.execute(LEFTOVERS.get(name, "select"))
    lines = load(name)
    player = Player(gateway, writer, skip=SKIPPED.get(name, lambda line: False))
    replay = await player.play(lines)
    versions = {
        line["conn"]: "2.0.0" if "vsn=2.0.0" in line["connect"] else "1.0.0"
        for line in lines
        if "connect" in line
    }
    recorded, ours = compared(replay, versions, DIFFERENCES.get(name, []))
    assert ours.keys() == recorded.keys()
    for key, frames in recorded.items():
        for index, (own, expected) in enumerate(zip(ours[key], frames, strict=False)):
            assert own == expected, f"frame {index} of {key}"
        assert len(ours[key]) == len(frames), f"number of frames of {key}: {ours[key][len(frames) :]}"
    for conn, recorded_code, own_code in replay.closes:
        assert own_code == recorded_code, f"close code of {conn}"
