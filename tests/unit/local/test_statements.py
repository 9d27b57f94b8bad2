"""Scripts are split where PostgreSQL would, and every statement knows its line."""

from __future__ import annotations

import pytest

from reactive_worker.local.statements import split_statements


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ;; -- nothing\n;", []),
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select ';''x;'; select 2", ["select ';''x;'", "select 2"]),
        (r"select E'\';'; select 2", [r"select E'\';'", "select 2"]),
        (r"select 'a\'; select 'b'", [r"select 'a\'", "select 'b'"]),
        ('select 1 as "a;""b"; select 2', ['select 1 as "a;""b"', "select 2"]),
        ("do $$ begin; end $$; select 2", ["do $$ begin; end $$", "select 2"]),
        ("do $a$ $$;$b$; $a$; select 2", ["do $a$ $$;$b$; $a$", "select 2"]),
        ("select $1; select a$b$c; select 3", ["select $1", "select a$b$c", "select 3"]),
        ("select 1 /* ; /* ; */ ; */; select 2", ["select 1 /* ; /* ; */ ; */", "select 2"]),
        ("select 1 -- ; no end\n; select 2", ["select 1 -- ; no end", "select 2"]),
        ("-- about it\nselect 1;", ["-- about it\nselect 1"]),
    ],
)
def test_only_a_statements_own_semicolon_ends_it(script: str, statements: list[str]) -> None:
    assert [statement.text for statement in split_statements(script)] == statements


def test_a_sql_function_body_is_one_statement() -> None:
    body = "create function f() returns int begin atomic select case when true then 1 end; select 2; end"
    assert [s.text for s in split_statements(f"{body}; select 3;")] == [body, "select 3"]


def test_a_transaction_is_not_a_function_body() -> None:
    assert [s.text for s in split_statements("begin; select 1; end;")] == ["begin", "select 1", "end"]


def test_lines_are_those_of_the_script() -> None:
    statements = split_statements("\n-- first\n\nselect 1;\n\n/* two\nlines */ select\n 2;\n")
    assert [(s.start_line, s.line) for s in statements] == [(2, 4), (6, 7)]
