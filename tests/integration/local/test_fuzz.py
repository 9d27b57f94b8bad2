"""Hundreds of requests made of plausible parts: never a 5xx, never a row of another table, always alive."""

from __future__ import annotations

import csv
import random
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.local.attacks import MARK, error_shape
from tests.integration.local.conftest import Api

REQUESTS = 600

COLUMNS = "id name age tags data mood born score created_at data->lang data->>n".split()  # noqa: SIM905
WORDS = [
    *(
        "eq",
        "neq",
        "gt",
        "gte",
        "lt",
        "lte",
        "like",
        "ilike",
        "match",
        "is",
        "in",
        "cs",
        "cd",
        "ov",
        "sl",
        "adj",
    ),
    *("isdistinct", "not.eq", "not.in", "not.is", "eq(any)", "like(all)", "fts", "bad"),
]
VALUES = [
    *(
        "1",
        "0",
        "-5",
        "17",
        "Ada",
        "a*",
        "*",
        "null",
        "true",
        "{1,2}",
        "{code}",
        "(1,2)",
        "()",
        '("a,b",c)',
        "[1,5)",
    ),
    *(
        '{"a": 1}',
        "1815-12-10",
        "2026-01-01T00:00:00Z",
        "",
        "'",
        '"',
        "\\",
        "x" * 300,
        "ü",
        "😀",
        "a b",
        "%",
        "1e400",
    ),
    *("select line from vault", "'; table vault; --"),
]
#: Conditions that fit their column, so that many requests get as far as the rows.
FITTING = [
    *(
        "id.gt.0",
        "id.in.(1,2,3)",
        "name.like.*a*",
        "name.neq.Bob",
        "age.lt.99",
        "age.is.null",
        "tags.cs.{code}",
    ),
    *("data->>n.is.null", "mood.eq.ok", "born.lt.2000-01-01", "score.gte.1.5", "created_at.gt.2020-01-01"),
]
TYPES = ["text", "text", "text", "jsonb", "numeric", "text[]", "regclass", "nothing", "double precision"]
FUNCTIONS = [
    "add",
    "echo",
    "numbers",
    "everyone",
    "oldest",
    "pairs",
    "total",
    "types",
    "whole_body",
    "nothing",
    "no",
]
PREFERENCES = [
    *("return=representation", "return=minimal", "count=exact", "count=planned", "missing=default"),
    *("resolution=merge-duplicates", "resolution=ignore-duplicates", "handling=strict", "max-affected=1"),
    *("tx=rollback", "odd=thing"),
]
ACCEPTS = [
    *("*/*", "*/*", "application/json", "application/json;q=0.1", "application/vnd.pgrst.object+json"),
    *("application/vnd.pgrst.array+json;nulls=stripped", "text/csv", "nonsense"),
]


class Maker:
    """Makes requests; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, choices: list[str], most: int = 2) -> list[str]:
        return [self.random.choice(choices) for _ in range(self.random.randint(0, most))]

    def condition(self) -> str:
        """``column.operator.value``."""
        if self.random.random() < 0.75:
            return self.random.choice(FITTING)
        return ".".join(self.random.choice(parts) for parts in (COLUMNS, WORDS, VALUES))

    def tree(self, depth: int = 0) -> str:
        items: list[str] = []
        for _ in range(self.random.randint(1, 3)):
            if depth < 3 and self.random.random() < 0.3:
                items.append(
                    f"{self.random.choice(['and', 'or', 'not.and', 'not.or'])}{self.tree(depth + 1)}"
                )
            else:
                items.append(self.condition())
        return f"({','.join(items)})"

    def selected(self) -> str:
        column = self.random.choice([*COLUMNS, "*"])
        if self.random.random() < 0.3:
            column = f"alias:{column}"
        return f"{column}::{self.random.choice(TYPES)}" if self.random.random() < 0.3 else column

    def ordered(self) -> str:
        return self.random.choice(COLUMNS) + self.random.choice(
            ["", ".asc", ".desc", ".nullsfirst", ".desc.nullslast", ".up"]
        )

    def query(self) -> str:
        pairs: list[tuple[str, str]] = []
        chance = self.random.random
        if chance() < 0.6:
            pairs.append(("select", ",".join(self.selected() for _ in range(self.random.randint(0, 4)))))
        for _ in range(self.random.randint(0, 2)):
            column, _, condition = self.condition().partition(".")
            pairs.append((column, condition))
        if chance() < 0.3:
            pairs.append((self.random.choice(["or", "and", "not.or"]), self.tree()))
        if chance() < 0.3:
            pairs.append(("order", ",".join(self.ordered() for _ in range(self.random.randint(1, 3)))))
        if chance() < 0.3:
            pairs.append(
                (
                    self.random.choice(["limit", "offset"]),
                    self.random.choice(["0", "1", "5", "-1", "99999", "x"]),
                )
            )
        if chance() < 0.15:
            pairs.append(
                (self.random.choice(["columns", "on_conflict"]), ",".join(self.some(COLUMNS) or ["id"]))
            )
        return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)

    def value(self) -> Any:
        return self.random.choice(
            [None, 1, -1.5, "x", "", True, [], [1, "a"], {}, {"lang": 1}, "ok", "2026-01-01", "1", 10**30]
        )

    def row(self) -> dict[str, Any]:
        return {self.random.choice(COLUMNS): self.value() for _ in range(self.random.randint(0, 4))}

    def body(self) -> Any:
        return self.random.choice(
            [self.row(), [self.row() for _ in range(self.random.randint(0, 3))], self.value()]
        )

    def request(self) -> tuple[str, str, dict[str, str], Any]:
        headers = {"Prefer": ",".join(self.some(PREFERENCES)), "Accept": self.random.choice(ACCEPTS)}
        if self.random.random() < 0.1:
            headers["Range"] = self.random.choice(["0-1", "5-", "3-1", "x"])
        method = self.random.choice(["GET", "GET", "GET", "HEAD", "POST", "PATCH", "DELETE"])
        if self.random.random() < 0.3:
            name = self.random.choice(FUNCTIONS)
            method = self.random.choice(["GET", "POST", "HEAD"])
            arguments = {
                self.random.choice(["a", "b", "n", "value", "numbers"]): self.value() for _ in range(2)
            }
            query = self.query() if self.random.random() < 0.5 else ""
            if method == "POST":
                return method, f"/rpc/{name}?{query}", headers, arguments
            sent = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in arguments.items())
            return method, f"/rpc/{name}?{sent}&{query}", headers, None
        table = self.random.choice(
            ["people", "people", "people", "adults", "notes", "log", "secret", "nowhere"]
        )
        return (
            method,
            f"/{table}?{self.query()}",
            headers,
            self.body() if method in ("POST", "PATCH") else None,
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_requests_made_of_plausible_parts(api: Api, seed: int) -> None:
    api.connection.execute(f"create table vault (line text); insert into vault values ('{MARK}')")
    api.connection.execute("grant all on vault to service_role")
    maker, statuses = Maker(seed), dict[int, int]()
    try:
        for _ in range(REQUESTS // 2):
            method, path, headers, body = maker.request()
            key = maker.random.choice(
                [api.gateway.secret_key, api.gateway.secret_key, api.gateway.publishable_key]
            )
            answer = api.request(
                method, path, headers=headers, key=key, **({"json": body} if body is not None else {})
            )
            said = (method, path, headers, body, answer.text[:500])
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert MARK not in answer.text, said
            assert answer.status_code < 500 or answer.json()["code"].startswith(("54", "21")), said
            if answer.status_code >= 400 and method != "HEAD":
                error_shape(answer)
            elif answer.status_code in (200, 201, 206) and answer.content:
                if answer.headers["content-type"].startswith("text/csv"):
                    assert list(csv.reader(answer.text.splitlines())), said
                else:
                    answer.json()
        assert api.rows("select line from vault") == [(MARK,)]
        assert api.rpc("add", a=1).json() == 11
    finally:
        api.connection.execute("drop table vault")
    # The parts are plausible: many requests succeed, and many are refused.
    assert statuses[200] > 10
    assert statuses[400] > 30
