"""Who may do what, cell by cell: every role on every table and function, over HTTP on the real database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from typing import Any

import httpx
import psycopg
import pytest

from tests.integration.security.people import ANN, BOB, ROLES, headers

# What each cell says:
#   -    refused: 401 to whoever brings no key or the anonymous one, 403 to others, with PostgreSQL's 42501
#   0    not refused, but there is nothing: no row is seen, none is changed
#   1    it works: the row is seen or changed, the function answers
#   404  the function finds no such task
#   x    there is no such thing: 404, or 406 for a schema that is not exposed
#
# `open` rows are pending or in progress, `ended` ones completed; both are Ann's. A foreign table stands for
# the rest of the project.
TABLES = """
                                   none anon owner other worker service
todolist      select open           -    -    1     0     -      1
todolist      select open columns   -    -    1     0     1      1
todolist      select ended          -    -    1     0     -      1
todolist      select ended columns  -    -    1     0     0      1
todolist      insert                -    -    1     1     -      1
todolist      insert for Ann        -    -    1     -     -      1
todolist      insert agent_status   -    -    -     -     -      1
todolist      insert agent_output   -    -    -     -     -      1
todolist      insert attempt        -    -    -     -     -      1
todolist      insert failures       -    -    -     -     -      1
todolist      insert worker_id      -    -    -     -     -      1
todolist      insert task_state     -    -    -     -     -      1
todolist      insert error          -    -    -     -     -      1
todolist      insert created_at     -    -    -     -     -      1
todolist      update                -    -    -     -     -      1
todolist      update owner_id       -    -    -     -     -      1
todolist      upsert                -    -    -     -     -      1
todolist      delete                -    -    -     -     -      1
events        select open           -    -    1     0     1      1
events        select ended          -    -    1     0     0      1
events        insert                -    -    -     -     -      1
events        update                -    -    -     -     -      1
events        delete                -    -    -     -     -      1
steering      select                -    -    1     0     -      1
steering      insert                -    -    -     -     -      1
steering      update                -    -    -     -     -      1
steering      delete                -    -    -     -     -      1
workers       select                -    -    -     -     -      1
workers       insert                -    -    -     -     -      1
workers       update                -    -    -     -     -      1
workers       delete                -    -    -     -     -      1
worker_mailbox select               -    -    -     -     1      1
worker_mailbox insert               -    -    -     -     -      1
worker_mailbox update               -    -    -     -     -      1
worker_mailbox delete               -    -    -     -     -      1
foreign_table select                -    -    -     -     -      1
foreign_table insert                -    -    -     -     -      1
users         select in auth        -    x    x     x     x      x
messages      select in realtime    -    x    x     x     x      x
schema_migrations select in supabase_migrations - x x x   x      x
"""

FUNCTIONS = """
                               none anon owner other worker service
submit_todos                    -    -    1     1     -      1
cancel_todo                     -    -    1     404   -      1
retry_todo                      -    -    1     404   -      1
answer_todo                     -    -    1     404   -      1
steer_todo                      -    -    1     404   -      1
tail_events                     -    -    1     1     -      1
read_steering                   -    -    -     -     1      1
register_worker                 -    -    -     -     1      1
heartbeat_worker                -    -    -     -     1      1
unregister_worker               -    -    -     -     1      1
touch_probe                     -    -    -     -     1      1
sweep_todos                     -    -    -     -     1      1
reclaim_todos                   -    -    -     -     1      1
prune_todos                     -    -    -     -     -      1
claim_todos                     -    -    -     -     1      1
append_events                   -    -    -     -     1      1
finish_todos                    -    -    -     -     1      1
release_todos                   -    -    -     -     1      1
push_ways                       -    -    -     -     1      1
set_worker_state                -    -    -     -     -      1
list_workers                    -    -    -     -     -      1
todo_stats                      -    -    -     -     -      1
todo_timings                    -    -    -     -     -      1
reactive_worker_now             -    -    1     1     -      1
reactive_worker_uuid            -    -    1     1     -      1
reactive_worker_schema_version  -    1    1     1     1      1
reactive_worker_diagnose        -    -    -     -     1      1
reactive_worker_rows            -    -    -     -     1      1
foreign_function                -    -    -     -     -      1
put_back in reactive_worker_private - x   x     x     x      x
lock_todos in reactive_worker_private - x x     x     x      x
cancel_todo in reactive_worker_private - x x    x     x      x
"""

Cells = dict[tuple[str, str], str]

#: Seen by workers, of tasks that are open.
COLUMNS = "id,agent_type,agent_status,priority,attempt,available_at,created_at,owner_id,context_id"

#: A value for each column no client may choose.
PROTECTED: dict[str, Any] = {
    "agent_status": "completed",
    "agent_output": {"text": "forged"},
    "attempt": 7,
    "failures": 7,
    "worker_id": str(uuid.uuid4()),
    "task_state": "TASK_STATE_COMPLETED",
    "error": {"type": "Forged"},
    "created_at": "2020-01-01T00:00:00Z",
}


def cells(table: str) -> Cells:
    """A table as it is written above: {(action, role): what}."""
    _, *lines = table.strip("\n").splitlines()
    found: Cells = {}
    for line in lines:
        words = line.split()
        action = " ".join(words[: -len(ROLES)])
        found.update({(action, role): what for role, what in zip(ROLES, words[-len(ROLES) :], strict=True)})
    return found


class Api:
    """Asks as anybody, on rows made afresh for each question."""

    def __init__(self, supabase: Any) -> None:
        self.headers = headers(supabase)
        self.http = httpx.Client(base_url=f"{supabase.api_url}/rest/v1", timeout=30)
        self.db = psycopg.connect(supabase.db_url, autocommit=True)
        self.sql(
            "create table foreign_table (id int primary key); insert into foreign_table values (1);"
            "grant all on foreign_table to service_role;"
            "create function foreign_function() returns int language sql as 'select 1';"
            "revoke all on function foreign_function() from public;"
            "grant execute on function foreign_function() to service_role;"
            "notify pgrst, 'reload schema'"
        )

    def close(self) -> None:
        self.http.close()
        self.db.close()

    def sql(self, statement: str, *parameters: Any) -> Any:
        """Run a statement as the owner of the database; the first value, if any."""
        cursor = self.db.execute(statement, parameters or None)  # type: ignore[arg-type]
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]

    def task(self, status: str) -> str:
        """A task of Ann's with one event."""
        return self.sql(
            "with t as (insert into todolist (agent_type, prompt, agent_status, owner_id)"
            " values ('test', 'secret', %s, %s) returning id)"
            " insert into events (todolist_id, event_type, event_data, seq, message)"
            " select id, 'task_progress', '{}', 1, 'secret' from t returning todolist_id::text",
            status,
            ANN,
        )

    def worker(self) -> str:
        """A registered worker with a mailbox."""
        return self.sql(
            "with w as (insert into workers (id, lease_until)"
            " values (gen_random_uuid(), now() + interval '1 hour') returning id)"
            " insert into worker_mailbox (worker_id) select id from w returning worker_id::text"
        )

    def ask(self, role: str, action: str) -> str:
        """What becomes of an action, as a cell says it."""
        table, _, rest = action.partition(" ")
        profile = ""
        if " in " in action:
            rest, _, profile = rest.partition("in ")
        verb, _, what = rest.strip().partition(" ")
        method, path, body, more = (self._on_table if verb else self._function)(table, verb, what)
        answer = self.http.request(
            method,
            path,
            json=body,
            headers={
                **self.headers[role],
                **more,
                **({"Accept-Profile": profile, "Content-Profile": profile} if profile else {}),
            },
        )
        return verdict(role, answer, rows=bool(verb))

    def _on_table(self, table: str, verb: str, what: str) -> tuple[str, str, Any, dict[str, str]]:
        key, filled = self._row(table, what)
        back = {"Prefer": "return=representation"}
        if verb == "select":
            return "GET", f"/{table}?{key}&select={COLUMNS if 'columns' in what else '*'}", None, {}
        if verb == "update":
            column = what or {
                "workers": "name",
                "worker_mailbox": "desired_state",
                "steering": "refused_at",
            }.get(table, "message")
            value = {"owner_id": BOB, "desired_state": "paused", "refused_at": "2030-01-01"}.get(
                column, "forged"
            )
            if table == "todolist" and not what:
                column, value = "agent_output", {"text": "forged"}  # type: ignore[assignment]
            return "PATCH", f"/{table}?{key}", {column: value}, back
        if verb == "delete":
            return "DELETE", f"/{table}?{key}", None, back
        if verb == "upsert":
            row = {"id": key.removeprefix("id=eq."), "agent_type": "test", "prompt": "forged"}
            return "POST", f"/{table}", row, {"Prefer": "return=representation,resolution=merge-duplicates"}
        # Without representation: inserting and reading are two rights.
        return "POST", f"/{table}", filled, {"Prefer": "return=minimal"}

    def _row(self, table: str, what: str) -> tuple[str, dict[str, Any]]:
        """A filter for one fresh row of a table, and one more to insert."""
        if table == "todolist":
            new: dict[str, Any] = {"agent_type": "test", "prompt": "x"}
            if what == "for Ann":
                new["owner_id"] = ANN
            elif what in PROTECTED:
                new[what] = PROTECTED[what]
            return f"id=eq.{self.task('completed' if 'ended' in what else 'pending')}", new
        if table == "events":
            task = self.task("completed" if what == "ended" else "in_progress")
            row = {"todolist_id": task, "event_type": "task_progress", "event_data": {}, "seq": 2}
            return f"todolist_id=eq.{task}", row
        if table == "steering":
            task = self.task("in_progress")
            said = "insert into steering (id, todolist_id, message) values (gen_random_uuid(), %s, %s)"
            message = {"parts": [{"text": "shorter"}]}
            self.sql(said, task, json.dumps(message))
            new = {"id": str(uuid.uuid4()), "todolist_id": task, "message": message}
            return f"todolist_id=eq.{task}", new
        if table == "workers":
            new = {"id": str(uuid.uuid4()), "lease_until": "2030-01-01T00:00:00Z"}
            return f"id=eq.{self.worker()}", new
        if table == "worker_mailbox":
            worker = self.worker()
            spare = self.worker()
            self.sql("delete from worker_mailbox where worker_id = %s", spare)
            return f"worker_id=eq.{worker}", {"worker_id": spare}
        return "id=gt.0", {"id": self.sql("select max(id) + 1 from foreign_table")}

    def _function(self, name: str, *_: str) -> tuple[str, str, Any, dict[str, str]]:
        return "POST", f"/rpc/{name}", self._arguments(name), {}

    def _arguments(self, name: str) -> dict[str, Any]:
        if name == "submit_todos":
            return {"p_rows": [{"agent_type": "test", "prompt": "x"}]}
        if status := {
            "cancel_todo": "pending",
            "retry_todo": "failed",
            "answer_todo": "input_required",
            "steer_todo": "in_progress",
        }.get(name):
            body: dict[str, Any] = {"p_id": self.task(status)}
            message = {"messageId": str(uuid.uuid4()), "parts": [{"text": "hi"}]}
            return {**body, "p_message": message} if name in ("answer_todo", "steer_todo") else body
        if name == "reactive_worker_rows":
            return {"p_rows": 1}
        if name in (
            "list_workers",
            "todo_stats",
            "todo_timings",
            "tail_events",
            "push_ways",
            "foreign_function",
        ) or name.startswith("reactive_worker_"):
            return {}
        if name == "prune_todos":
            return {"p_older_than": "1 day"}
        if name == "lock_todos":
            return {"p_ids": []}
        if name == "put_back":
            return {"p_ids": [], "p_how": "lost"}
        worker = {"p_worker_id": self.worker()}
        more: dict[str, dict[str, Any]] = {
            "register_worker": {
                "p_name": "w",
                "p_agent_types": ["test"],
                "p_concurrency": 1,
                "p_lease_seconds": 30,
            },
            "heartbeat_worker": {"p_lease_seconds": 30},
            "set_worker_state": {"p_state": "running"},
            "sweep_todos": {"p_agent_types": ["test"], "p_limit": 1},
            "claim_todos": {"p_ids": [self.task("pending")], "p_want": 1},
            "append_events": {"p_events": []},
            "finish_todos": {"p_results": []},
            "release_todos": {"p_items": []},
            "read_steering": {"p_runs": []},
        }
        return {**worker, **more.get(name, {})}

    def differences(self, wanted: Cells) -> dict[tuple[str, str], str]:
        """The cells that are not as the table says."""
        found = {(action, role): self.ask(role, action) for action, role in wanted}
        return {cell: found[cell] for cell, what in wanted.items() if found[cell] != what}


def verdict(role: str, answer: httpx.Response, *, rows: bool) -> str:
    """An answer as a cell says it; anything unexpected as its status and text."""
    said = answer.text
    code = json.loads(said).get("code") if said.startswith("{") else None
    if answer.status_code == 401 and role == "none":
        return "-"
    if answer.status_code == (401 if role == "anon" else 403) and code == "42501":
        return "-"
    if code == "PT404":
        return "404"
    if (answer.status_code, code) in ((406, "PGRST106"), (404, "PGRST202"), (404, "PGRST205")):
        return "x"
    if answer.is_success:
        return "0" if rows and said == "[]" else "1"
    return f"{answer.status_code} {said}"


@pytest.fixture
def api(local_supabase: Any) -> Generator[Api]:
    api = Api(local_supabase)
    yield api
    api.close()


def test_every_cell_is_as_the_tables_say(api: Api) -> None:
    wanted = {**cells(TABLES), **cells(FUNCTIONS)}
    assert len(wanted) > 300
    assert api.differences(wanted) == {}


def test_no_table_and_no_function_is_left_out(api: Api) -> None:
    """One that is added to the schema must be added above, or this fails."""
    relations = api.db.execute(
        "select relname from pg_class"
        " where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm')"
    ).fetchall()
    functions = api.db.execute(
        "select distinct proname from pg_proc where pronamespace = 'public'::regnamespace"
    ).fetchall()
    assert {name for (name,) in relations} <= {action.split()[0] for action, _ in cells(TABLES)}
    assert {name for (name,) in functions} <= {action for action, _ in cells(FUNCTIONS)}


def test_a_right_that_is_opened_shows(api: Api) -> None:
    """The negative control: each hole turns exactly its own cells."""
    api.sql(
        "grant select on workers to anon;"
        "create policy hole on workers for select to anon using (true);"
        "grant update on worker_mailbox to reactive_worker;"
        "grant insert (agent_status) on todolist to authenticated;"
        "alter table events disable row level security;"
        "grant execute on function push_ways() to authenticated;"
        "revoke execute on function claim_todos(uuid, uuid[], integer, bigint) from reactive_worker;"
        "notify pgrst, 'reload schema'"
    )
    assert api.differences({**cells(TABLES), **cells(FUNCTIONS)}) == {
        # A worker is what anybody is, too.
        ("workers select", "anon"): "1",
        ("workers select", "worker"): "1",
        ("worker_mailbox update", "worker"): "0",
        ("todolist insert agent_status", "owner"): "1",
        ("todolist insert agent_status", "other"): "1",
        ("events select open", "other"): "1",
        ("events select ended", "other"): "1",
        ("events select ended", "worker"): "1",
        ("push_ways", "owner"): "1",
        ("push_ways", "other"): "1",
        ("claim_todos", "worker"): "-",
    }
