"""What the recordings do not spell out, and what a replay cannot wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Line = dict[str, Any]


def _kill(stream: str) -> str:
    # Other databases of the server have streams as well; and it is gone when this returns.
    return (
        "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots"
        f" where database = current_database() and slot_name like '{stream}%'"
    )


#: Statements the recording names but does not spell out.
STATEMENTS = {
    "delete from todolist (leftovers)": "delete from todolist",
    "50 inserts": "insert into todolist(id, agent_type, priority) select"
    " ('00000000-0000-0000-0000-' || lpad(to_hex(g + 2), 12, '0'))::uuid, 'x', g"
    " from generate_series(0, 49) g",
    "select pg_terminate_backend(active_pid) from pg_replication_slots where plugin='pgoutput'": _kill(
        "realtime_messages"
    ),
}

#: Rows an earlier recording had left behind.
LEFTOVERS = {
    "06_bindings_and_filters": "insert into todolist (id, agent_type) values"
    " ('339c56ae-741c-4014-ab5a-6a5c999fc558', 'x'), ('39564ebc-6894-412a-bc06-03d42cc68497', 'x')",
    "23_database_faults": "select setval('lat_t_id_seq', 5740)",
    "07b_one_bad_binding": "insert into types_t (id) values (2), (3), (4), (5), (6), (1)",
}

_AB = "00000000-0000-0000-0000-0000000000ab"


def _connect(conn: str, token: str, version: str = "1.0.0") -> Line:
    return {"dir": "note", "connect": f"ws://host/?apikey=<jwt:{token}>&vsn={version}", "conn": conn}


def _sql(statement: str) -> Line:
    return {"dir": "note", "sql": statement}


def _first_joins(lines: list[Line]) -> list[Line]:
    """26: the 97 joins that were left out."""
    made: list[Line] = [_connect("a", "anon")]
    for number in range(97):
        topic, ref = f"realtime:ch{number}", str(number + 1)
        join = {"topic": topic, "event": "phx_join", "payload": {"config": {}}, "ref": ref, "join_ref": ref}
        payload = {"response": {"postgres_changes": []}, "status": "ok"}
        reply = {"event": "phx_reply", "payload": payload, "ref": ref, "topic": topic}
        made += [{"dir": "out", "conn": "a", "frame": join}, {"dir": "in", "conn": "a", "frame": reply}]
    return [*made, *lines]


def _publication_checks(lines: list[Line]) -> list[Line]:
    """13: the check that comes every minute comes when the recording shows it; the idle socket is closed."""
    made: list[Line] = []
    for line in lines:
        if line["dir"] == "in" and line["t"] > 27_000 and line["frame"]["event"] == "system":
            unasked = [{"dir": "note", "publication_check": True}] if line["conn"] == "late" else []
            made += [*unasked, line]
        elif line.get("closed") and line["conn"] == "late":
            # After 66 s without a heartbeat, which test_sockets shows with a shorter limit.
            made.append({"dir": "note", "conn": "late", "client_closes": True})
        else:
            made.append(line)
    return made[:-1]


def _python_client(lines: list[Line]) -> list[Line]:
    """21: the connections, of which the second was another client's under the same name."""
    made: list[Line] = [_connect("py", "anon")]
    service = False
    for line in lines:
        if line.get("case") == "private channel, service key connection":
            made.append(_connect("py_service", "service_role"))
        elif line.get("case") == "presence":
            service = False
        joined = line.get("frame", {}).get("topic") == "realtime:jobs:py"
        service = service or (joined and line["dir"] == "out")
        heartbeat = line.get("frame", {}).get("topic") == "phoenix"
        made.append({**line, "conn": "py_service"} if joined or (service and heartbeat) else line)
    # The last frame's answer was not recorded any more.
    return made[:-1]


def _js_client(lines: list[Line]) -> list[Line]:
    """22: the statements, which another program made."""
    before = {
        7: "insert into todolist(id, agent_type, input_data) values('" + _AB + """', 'x', '{"a":1}')""",
        10: f"update todolist set priority = 2 where id = '{_AB}'",
        12: """select realtime.send('{"q":1}', 'wake', 'js', false)""",
        14: f"delete from todolist where id = '{_AB}'",
        25: """select realtime.send('{"q":2}', 'wake', 'jobs:js', true)""",
    }
    made: list[Line] = []
    for number, line in enumerate(lines):
        if "closed" in line:
            # The client closed without a code, which ours does with 1000.
            made.append({"dir": "note", "conn": line["conn"], "client_closes": True})
            continue
        made += [_sql(before[number])] if number in before else []
        made.append(line)
    return made


def _stream_killed(lines: list[Line]) -> list[Line]:
    """25: how long the server is silent is a matter of chance; what is sent meanwhile is lost in both."""
    made: list[Line] = []
    for line in lines:
        if '{"i":8}' in line.get("sql", ""):
            made.append({"dir": "note", "streams_again": 8})
        made.append(line)
    return made


def _database_faults(lines: list[Line]) -> list[Line]:
    """23: the probes, spelled out; as in 25 streams come back when the recording shows it. No restart."""
    made: list[Line] = []
    for line in lines:
        case, wrote = line.get("case", ""), line.get("wrote", "")
        if case.startswith("PostgreSQL restarted"):
            break
        if case.startswith("kill"):
            made.append(_sql(_kill("realtime_changes" if "wal2json" in case else "realtime_messages")))
        made += [{"dir": "note", "changes_again": True}] if wrote == "lat_t poller:1" else []
        table, _, probe = wrote.partition(" ")
        if table == "lat_t":
            made.append(_sql(f"insert into lat_t(v) values('{probe}')"))
        elif table == "realtime.send":
            made.append(_sql(f"""select realtime.send('{{"p":"{probe}"}}', 'wake', 'fail', true)"""))
        else:
            made.append(line)
    return made


_COMPLETED: dict[str, Callable[[list[Line]], list[Line]]] = {
    "13_publication": _publication_checks,
    "21_client_realtime_py": _python_client,
    "22_client_realtime_js": _js_client,
    "23_database_faults": _database_faults,
    "25_message_stream_killed": _stream_killed,
    "26_channel_limit": _first_joins,
}


def complete(name: str, lines: list[Line]) -> list[Line]:
    """A recording with what it leaves out."""
    return _COMPLETED.get(name, lambda unchanged: unchanged)(lines)
