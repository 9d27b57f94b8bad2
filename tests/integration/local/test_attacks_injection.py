"""SQL in every parameter of the REST API stays text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.local.attacks import MARK, error_shape
from tests.integration.local.conftest import Api

#: What an attack must not change: the rows of `people` that were there, the vault, and what tables there are.
STATE = """
select (select md5(string_agg(p::text, ',' order by p.id)) from people p where id <= 4),
  (select string_agg(v::text, ',') from vault v),
  (select md5(string_agg(oid::text || relname, ',' order by oid)) from pg_class
    where relnamespace = 'public'::regnamespace)
"""

PAYLOADS = [
    "'; drop table vault; --",
    "\"; drop table vault; --",
    "id) from vault; --",
    "id\" from vault; --",
    '"id\\" from vault --"',
    "1; select * from vault",
    "1 union select line from vault",
    "id,(select line from vault)",
    "id::int) from (select line from vault) as x --",
    "id::text collate \"C\"",
    "id::int; drop table vault",
    "data->'x' || (select line from vault)",
    "data->>\"x') from vault --\"",
    "vault(*)",
    "vault!inner(line)",
    "...vault(line)",
    "line:vault(line)",
    "count()",
    "pg_sleep(5)",
    "current_user",
    "*,ctid,xmin,tableoid",
    "$1",
    "$$select line from vault$$",
    "E'\\x27'",
    "\\",
    "\"",
    "'",
    "''",
    "%27%20or%20%271%27=%271",
    "../vault",
    "public.vault",
    "\u0000vault",
    "id\u0000) from vault",
    "\ufeffid",
    "ıd'; ﹣﹣",
    "/**/",
    "id--",
    "(" * 50,
    "{" * 50,
    "id" + ".desc" * 50,
    "x" * 5000,
    "-1",
    "1e9",
    "0x10",
    "99999999999999999999999999",
    "NaN",
]  # fmt: skip


def _query(**parameters: str) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())


def _header(value: str) -> str:
    # What a client library lets through in a header.
    return "".join(character for character in value if " " <= character <= "~").strip()


#: Where something can be said: method, path, headers and body with the payload in it.
PLACES: dict[str, Any] = {
    "select": lambda p: ("GET", "/people?" + _query(select=p)),
    "select a path": lambda p: ("GET", "/people?" + _query(select=f"data->{p}")),
    "select an alias": lambda p: ("GET", "/people?" + _query(select=f"{p}:id")),
    "select a cast": lambda p: ("GET", "/people?" + _query(select=f"id::{p}")),
    "order": lambda p: ("GET", "/people?" + _query(order=p)),
    "order direction": lambda p: ("GET", "/people?" + _query(order=f"id.{p}")),
    "limit": lambda p: ("GET", "/people?" + _query(limit=p)),
    "offset": lambda p: ("GET", "/people?" + _query(offset=p)),
    "filter column": lambda p: ("GET", "/people?" + quote(p, safe="") + "=eq.1"),
    "filter operator": lambda p: ("GET", "/people?" + _query(name=p)),
    "filter value": lambda p: ("GET", "/people?" + _query(name=f"eq.{p}")),
    "filter of a number": lambda p: ("GET", "/people?" + _query(id=f"eq.{p}")),
    "filter list": lambda p: ("GET", "/people?" + _query(name=f"in.({p})")),
    "filter array": lambda p: ("GET", "/people?" + _query(tags=f"cs.{{{p}}}")),
    "filter json": lambda p: ("GET", "/people?" + _query(data=f"cs.{p}")),
    "filter pattern": lambda p: ("GET", "/people?" + _query(name=f"like.{p}")),
    "filter regular expression": lambda p: ("GET", "/people?" + _query(name=f"match.{p}")),
    "is": lambda p: ("GET", "/people?" + _query(age=f"is.{p}")),
    "or tree": lambda p: ("GET", "/people?" + _query(**{"or": f"({p})"})),
    "or tree value": lambda p: ("GET", "/people?" + _query(**{"or": f"(name.eq.{p})"})),
    "and tree": lambda p: ("GET", "/people?" + _query(**{"not.and": f"(id.gt.0,{p})"})),
    "columns": lambda p: ("POST", "/people?" + _query(columns=p), {}, {"name": "x"}),
    "on_conflict": lambda p: (
        "POST", "/people?" + _query(on_conflict=p), {"Prefer": "resolution=merge-duplicates"}, {"name": "x"},
    ),
    "column of an insert": lambda p: ("POST", "/people", {}, {p: 1}),
    "value of an insert": lambda p: ("POST", "/people?columns=mood", {}, {"mood": p}),
    "select of a write": lambda p: (
        "PATCH", "/people?" + _query(id="eq.5", select=p), {"Prefer": "return=representation"}, {"name": "x"},
    ),
    "table": lambda p: ("GET", "/" + quote(p, safe="")),
    "function": lambda p: ("POST", "/rpc/" + quote(p, safe=""), {}, {}),
    "argument name": lambda p: ("POST", "/rpc/add", {}, {p: 1}),
    "argument": lambda p: ("POST", "/rpc/add", {}, {"a": p}),
    "argument by GET": lambda p: ("GET", "/rpc/add?" + _query(a=p)),
    "argument name by GET": lambda p: ("GET", "/rpc/add?" + quote(p, safe="") + "=1"),
    "list argument by GET": lambda p: ("GET", "/rpc/total?" + _query(numbers=p)),
    "select of a function": lambda p: ("GET", "/rpc/everyone?" + _query(select=p)),
    "Prefer": lambda p: ("GET", "/people", {"Prefer": _header(p)}),
    "Prefer count": lambda p: ("GET", "/people", {"Prefer": f"count={_header(p)}"}),
    "Prefer max-affected": lambda p: (
        "DELETE", "/people?id=eq.77", {"Prefer": f"handling=strict,max-affected={_header(p)}"},
    ),
    "Range": lambda p: ("GET", "/people", {"Range": _header(p)}),
    "Range end": lambda p: ("GET", "/people", {"Range": f"0-{_header(p)}", "Range-Unit": "items"}),
    "Accept": lambda p: ("GET", "/people", {"Accept": _header(p)}),
    "Accept-Profile": lambda p: ("GET", "/people", {"Accept-Profile": _header(p)}),
    "Content-Profile": lambda p: ("POST", "/people", {"Content-Profile": _header(p)}, {"name": "x"}),
    "Content-Type": lambda p: ("POST", "/people", {"Content-Type": _header(p)}, {"name": "x"}),
    "Cookie": lambda p: ("GET", "/people", {"Cookie": _header(p)}),
    "another header": lambda p: ("GET", "/people", {"X-Test": _header(p)}),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_sql_stays_text_in(vault: Api, place: str) -> None:
    before = vault.rows(STATE)
    for payload in PAYLOADS:
        method, path, *rest = PLACES[place](payload)
        headers = rest[0] if rest else {}
        body = {"content": json.dumps(rest[1])} if len(rest) > 1 else {}
        headers = {"Content-Type": "application/json", **headers} if body else headers
        answer = vault.request(method, path, headers=headers, **body)
        assert MARK not in answer.text, (payload, answer.text)
        if answer.status_code >= 300:
            error_shape(answer)
        if answer.status_code == 200 and place in ("filter value", "filter array"):
            # It is a value, and nobody is called that.
            assert answer.json() == [], (payload, answer.text)
    assert vault.rows(STATE) == before
    assert vault.get("/people?id=eq.1&select=name").json() == [{"name": "Ada"}]
