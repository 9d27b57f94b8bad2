"""Which column of which table a view's column is: read from the tree PostgreSQL keeps of a view's query."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: A column: the relation's oid and the column's number.
Column = tuple[int, int]

# The tree is nested lists and nodes; what is special in a word has a backslash before it.
_WORD = re.compile(r"[(){}]|(?:\\.|[^\s(){}\\])+", re.DOTALL)
# Where the list of a query's columns lies in ({QUERY ... :targetList ({TARGETENTRY ...} ...) ...}).
_QUERY, _LIST, _ENTRY = 2, 3, 4


def view_columns(definition: str) -> dict[int, Column]:
    """The columns of a view that come straight from a column of a table or of another view.

    Parameters
    ----------
    definition:
        ``pg_rewrite.ev_action`` of the view, as text.

    Returns
    -------
    dict[int, Column]
        By number of the view's column; others (expressions) are not there.

    Example
    -------
    >>> view_columns("({QUERY :targetList ({TARGETENTRY :resno 1 :resorigtbl 16384 :resorigcol 2})})")
    {1: (16384, 2)}
    """
    found: dict[int, Column] = {}
    depth, in_list, key = 0, False, ""
    entry: dict[str, str] = {}
    for match in _WORD.finditer(definition):
        word = match.group()
        if word in "({":
            depth += 1
            if depth == _ENTRY:
                entry = {}
        elif word in ")}":
            if in_list and depth == _ENTRY:
                _keep(entry, found)
            elif in_list and depth == _LIST:
                break
            depth -= 1
        elif depth == _QUERY:
            in_list = word == ":targetList"
        elif in_list and depth == _ENTRY:
            if word.startswith(":"):
                key = word
            else:
                entry.setdefault(key, word)
    return found


def _keep(entry: Mapping[str, str], found: dict[int, Column]) -> None:
    table, column = int(entry.get(":resorigtbl", "0")), int(entry.get(":resorigcol", "0"))
    if table and column > 0 and entry.get(":resjunk") != "true":
        found[int(entry[":resno"])] = (table, column)


def base_columns(views: Mapping[int, Mapping[int, Column]]) -> dict[int, dict[Column, list[int]]]:
    """For each view, the columns of tables it shows, also through other views.

    Parameters
    ----------
    views:
        What `view_columns` found, by the views' oids.

    Returns
    -------
    dict[int, dict[Column, list[int]]]
        By the views' oids: a table's column, and the numbers of the view's columns it is seen as.
    """
    result: dict[int, dict[Column, list[int]]] = {}
    for view, columns in views.items():
        seen = result.setdefault(view, {})
        for number, origin in sorted(columns.items()):
            # Views cannot refer to themselves, so this ends.
            while origin[0] in views:
                inner = views[origin[0]].get(origin[1])
                if inner is None:
                    break
                origin = inner
            if origin[0] not in views:
                seen.setdefault(origin, []).append(number)
    return result
