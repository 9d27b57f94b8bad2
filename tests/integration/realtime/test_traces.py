"""What our server says, against what the real one (v2.129.8) was recorded to say.

Every frame of these traces is compared, by connection and topic: 01-04, 06-18, 21-27. The statements
and HTTP calls in between are made again; what a recording leaves out is in omissions.py.

Not replayed, as frames are not what they show:

====================================  ========================================================================
05_idle_close                         a minute of silence: test_sockets, with a shorter limit
19_message_rate_limit                 a flood it only summarises: tests/unit/test_realtime_rates.py compares
                                      what is lost and when, test_broadcast the frames
19b_postgres_changes_rate_limit       changes are not limited by the embedded server
20_latency, 20b                       results only, no frames: benchmarks/
23_database_faults, at its end        PostgreSQL is restarted: test_outage
====================================  ========================================================================
"""

from __future__ import annotations

import dataclasses
from typing import Any

import psycopg
import pytest

from tests.integration.realtime.comparison import Difference, compared
from tests.integration.realtime.conftest import QUICK, MakeGateway
from tests.integration.realtime.harness import Frame
from tests.integration.realtime.omissions import LEFTOVERS, Line
from tests.integration.realtime.replay import Player, load

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


#: The stream must stay away for as long as it takes to send the messages that are to be lost.
TIMINGS = {
    "23_database_faults": dataclasses.replace(QUICK, reconnect_first=1.0, messages_reconnect_first=30.0),
    "25_message_stream_killed": dataclasses.replace(QUICK, messages_reconnect_first=2.0),
}

#: Long enough for all that the recording shows to happen meanwhile.
REFUSAL_DELAYS = {"27_refused_join_blocks_socket": 1.5}

SKIPPED = {"02_connect": _elsewhere}


def _held_up(frames: list[Frame]) -> list[str]:
    """What came after the refusal, which held it up."""
    refusal = next(number for number, frame in enumerate(frames) if frame["payload"].get("status") == "error")
    named = [frame["ref"] or f"message {frame['payload']['payload']['i']}" for frame in frames[refusal:]]
    return sorted(named)


@pytest.mark.parametrize(
    "name",
    [
        "01_first_subscription_cold",
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
        "13_publication",
        "14_token",
        "15_broadcast_v1",
        "15_broadcast_v2",
        "16_realtime_send",
        "17_presence",
        "18_rest_broadcast",
        "21_client_realtime_py",
        "22_client_realtime_js",
        "23_database_faults",
        "24_server_shutdown",
        "25_message_stream_killed",
        "26_channel_limit",
        "27_refused_join_blocks_socket",
    ],
)
async def test_trace(name: str, make_gateway: MakeGateway, writer: psycopg.Connection[Any]) -> None:
    gateway = make_gateway(timings=TIMINGS.get(name, QUICK))
    gateway.faults.join_refusal_delay = REFUSAL_DELAYS.get(name, 0.02)
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
    if name == "27_refused_join_blocks_socket":
        # The first message leaves in the same instant as the join that is refused: either may be first.
        ours, theirs = _held_up(replay.actual["a"]), _held_up(replay.expected["a"])
        assert ours == theirs or ours == [name for name in theirs if name != "message 3"]
