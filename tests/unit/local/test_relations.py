"""How views show columns of tables, and which relationship a request means."""

from __future__ import annotations

from typing import Any

import pytest

from reactive_worker.local.rest.relations import Relations, matching
from reactive_worker.local.rest.views import base_columns, view_columns


def definition(*columns: tuple[int, int]) -> str:
    """A view's query as PostgreSQL keeps it, as far as it matters."""
    entries = " ".join(
        f"{{TARGETENTRY :expr {{VAR :varno 1 :resno 99}} :resno {number} :resname x\\ \\}} :ressortgroupref 0"
        f" :resorigtbl {table} :resorigcol {column} :resjunk false}}"
        for number, (table, column) in enumerate(columns, start=1)
    )
    sub = "{QUERY :targetList ({TARGETENTRY :resno 1 :resorigtbl 7 :resorigcol 7 :resjunk false})}"
    return f"({{QUERY :commandType 1 :rtable ({{RTE :subquery {sub}}}) :targetList ({entries}) :limit <>}})"


def test_columns_of_a_view() -> None:
    assert view_columns(definition((10, 2), (0, 0), (10, 1))) == {1: (10, 2), 3: (10, 1)}
    assert view_columns("({QUERY :targetList <>})") == {}


def test_columns_through_views() -> None:
    views = {20: {1: (10, 1), 2: (10, 1), 3: (11, 5)}, 21: {1: (20, 2), 2: (20, 9)}}
    assert base_columns(views) == {20: {(10, 1): [1, 2], (11, 5): [3]}, 21: {(10, 1): [1]}}


def relation(oid: int, name: str, *columns: str, key: Any = (1,), view: str | None = None) -> dict[str, Any]:
    numbered = {str(number): column for number, column in enumerate(columns, start=1)}
    return {
        "oid": oid,
        "schema": "hidden" if name == "secret" else "public",
        "name": name,
        "columns": numbered,
        "key": list(key) if key else None,
        "definition": view,
    }


def reference(name: str, table: int, column: int, other: int, *, unique: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "table": table,
        "other": other,
        "columns": [column],
        "others": [1],
        "unique": unique,
    }


RELATIONS = Relations(
    {
        "relations": [
            relation(1, "films", "id", "director_id", "parent_id"),
            relation(2, "directors", "id"),
            relation(3, "actors", "id"),
            relation(4, "roles", "film_id", "actor_id", "name", key=(1, 2)),
            relation(5, "details", "film_id"),
            relation(6, "old_films", "number", "by", key=None, view=definition((1, 1), (1, 2))),
            relation(7, "secret", "id", "film_id"),
            relation(8, "awards", "id", "winner_id", "rival_id"),
        ],
        "constraints": [
            reference("films_director", 1, 2, 2),
            reference("films_parent", 1, 3, 1),
            reference("roles_film", 4, 1, 1),
            reference("roles_actor", 4, 2, 3),
            reference("details_film", 5, 1, 1, unique=True),
            reference("secret_film", 7, 2, 1),
            reference("awards_winner", 8, 2, 3),
            reference("awards_rival", 8, 3, 3),
        ],
        "functions": [
            {"schema": "public", "name": "sequels", "table": 1, "other": 1, "single": False},
            {"schema": "public", "name": "directors", "table": 8, "other": 2, "single": True},
        ],
    }
)


def found(table: str, target: str, hint: str | None = None) -> list[tuple[str, str]]:
    known = RELATIONS.of(("public", table), ("public", "graphql_public"))
    return [(each.kind, each.name) for each in matching(known, target, hint)]


@pytest.mark.parametrize(
    ("table", "target", "hint", "expected"),
    [
        ("films", "directors", None, [("many-to-one", "films_director")]),
        ("directors", "films", None, [("one-to-many", "films_director")]),
        ("directors", "old_films", None, [("one-to-many", "films_director")]),
        ("old_films", "directors", None, [("many-to-one", "films_director")]),
        ("old_films", "roles", None, [("one-to-many", "roles_film")]),
        ("films", "actors", None, [("many-to-many", "roles")]),
        ("films", "actors", "roles", [("many-to-many", "roles")]),
        ("films", "actors", "awards", []),
        ("films", "details", None, [("one-to-one", "details_film")]),
        ("details", "films", None, [("one-to-one", "details_film")]),
        ("films", "films", None, [("one-to-many", "films_parent")]),
        ("films", "parent_id", None, [("many-to-one", "films_parent")]),
        ("films", "films", "parent_id", [("one-to-many", "films_parent")]),
        ("films", "director_id", None, [("many-to-one", "films_director")]),
        ("films", "films_director", None, [("many-to-one", "films_director")]),
        ("awards", "actors", None, [("many-to-one", "awards_rival"), ("many-to-one", "awards_winner")]),
        ("awards", "actors", "awards_rival", [("many-to-one", "awards_rival")]),
        ("awards", "actors", "winner_id", [("many-to-one", "awards_winner")]),
        ("actors", "awards", "rival_id", [("one-to-many", "awards_rival")]),
        ("films", "sequels", None, [("computed", "sequels")]),
        ("awards", "directors", None, [("computed", "directors")]),
        ("films", "secret", None, []),
        ("films", "nothing", None, []),
    ],
)
def test_what_is_meant(table: str, target: str, hint: str | None, expected: list[tuple[str, str]]) -> None:
    assert sorted(found(table, target, hint)) == expected


def test_keys_of_views_are_those_of_their_tables() -> None:
    assert RELATIONS.keys[("public", "old_films")] == ("number",)
    assert RELATIONS.keys[("public", "roles")] == ("film_id", "actor_id")
