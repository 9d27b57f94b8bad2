# ruff: noqa: S608 - building SQL is what this file is for: values are parameters, names are quoted
"""Reads of tables and views as SQL, and how many rows there are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from reactive_worker.local.rest.preferences import Count
from reactive_worker.local.rest.session import Row
from reactive_worker.local.rest.sql import SOURCE, Built, Parameters, Shape, body_sql, result_sql
from reactive_worker.local.rest.tree import Node
from reactive_worker.local.rest.tree_sql import count_sql, tree_sql


@dataclass(frozen=True)
class Read:
    """A SELECT, and the EXPLAIN that guesses how many rows there are, where that is asked for."""

    built: Built
    explain: Built | None = None


def build_read(node: Node, shape: Shape, *, count: Count | None, max_rows: int) -> Read:
    """A read of a table or view.

    Parameters
    ----------
    count:
        ``exact``: count all rows; ``planned``: ask the planner; ``estimated``: count up to one more than
        `max_rows`, and ask the planner as well.
    """
    parameters = Parameters()
    rows = tree_sql(node, parameters, max_rows=max_rows)
    total = "null::bigint"
    if count in ("exact", "estimated"):
        counted = count_sql(node, parameters)
        if count == "estimated":
            counted += f" limit {max_rows + 1}"
        total = f"(select pg_catalog.count(*) from ({counted}) as pgrst_count)"
    result = result_sql(f"select * from {SOURCE}", body=body_sql(shape), total=total)
    built = Built(f"with {SOURCE} as ({rows}) {result}", tuple(parameters.values))
    return Read(built, _explain(node) if count in ("planned", "estimated") else None)


def _explain(node: Node) -> Built:
    parameters = Parameters()
    return Built(f"explain (format json) {count_sql(node, parameters)}", tuple(parameters.values))


def total_rows(count: Count | None, counted: int | None, plan: Row | None, max_rows: int) -> int | None:
    """How many rows the answer says there are.

    Parameters
    ----------
    counted:
        Rows that were counted.
    plan:
        The row of the EXPLAIN.
    """
    if plan is None or plan[0] is None:
        return counted
    planned = int(json.loads(plan[0])[0]["Plan"]["Plan Rows"])
    if counted is None:
        return planned
    return max(counted, planned) if counted > max_rows else counted
