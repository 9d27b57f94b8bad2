"""What is refused about embedded tables, as PostgREST words it."""

from __future__ import annotations

from collections.abc import Sequence

from reactive_worker.local.rest.errors import ApiError
from reactive_worker.local.rest.relations import Relationship


def aggregates_refused() -> ApiError:
    """Aggregate functions are not switched on."""
    return ApiError(400, "PGRST123", "Use of aggregate functions is not allowed")


def not_embedded(name: str) -> ApiError:
    """A clause speaks of a table that is not embedded."""
    return ApiError(
        400,
        "PGRST108",
        f"'{name}' is not an embedded resource in this request",
        None,
        f"Verify that '{name}' is included in the 'select' query parameter.",
    )


def not_sortable(origin: str, name: str) -> ApiError:
    """Rows are to be sorted by a column of an embedded table that has many rows for each."""
    return ApiError(
        400,
        "PGRST118",
        f"A related order on '{name}' is not possible",
        f"'{origin}' and '{name}' do not form a many-to-one or one-to-one relationship",
    )


def no_relationship(
    schema: str, origin: str, name: str, hint: str | None, alike: tuple[str, str | None] | None
) -> ApiError:
    """No relationship leads from a table to the one to be embedded.

    Parameters
    ----------
    hint:
        The one of the request.
    alike:
        A name of the request that may be mistyped, and what may be meant.
    """
    using = f" using the hint '{hint}'" if hint is not None else ""
    advice = f"Perhaps you meant '{alike[1]}' instead of '{alike[0]}'." if alike and alike[1] else None
    return ApiError(
        400,
        "PGRST200",
        f"Could not find a relationship between '{origin}' and '{name}' in the schema cache",
        f"Searched for a foreign key relationship between '{origin}' and '{name}'{using} in the schema "
        f"'{schema}', but no matches were found.",
        advice,
    )


def ambiguous_embed(origin: str, name: str, found: Sequence[Relationship]) -> ApiError:
    """Several relationships lead to the table to be embedded."""
    answer = ApiError(
        300,
        "PGRST201",
        f"Could not embed because more than one relationship was found for '{origin}' and '{name}'",
        None,
        f"Try changing '{name}' to one of the following: "
        f"{', '.join(_choice(each) for each in found)}. Find the desired relationship in the 'details' key.",
    )
    answer.body["details"] = [_described(each) for each in found]
    return answer


def _choice(each: Relationship) -> str:
    key = each.junction.table[1] if each.junction else each.name
    return f"'{each.other[1]}!{key}'"


def _described(each: Relationship) -> dict[str, str]:
    if each.junction is not None:
        one, two = each.junction.constraints
        own = ", ".join(column for column, _ in each.junction.to_table)
        others = ", ".join(column for column, _ in each.junction.to_other)
        text = f"{each.junction.table[1]} using {one}({own}) and {two}({others})"
    else:
        own = ", ".join(column for column, _ in each.columns)
        others = ", ".join(column for _, column in each.columns)
        text = f"{each.name} using {each.table[1]}({own}) and {each.other[1]}({others})"
    return {
        "cardinality": each.kind,
        "embedding": f"{each.table[1]} with {each.other[1]}",
        "relationship": text,
    }
