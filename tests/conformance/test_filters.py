"""Every filter of supabase-py, against rows that tell it from its neighbours."""

from __future__ import annotations

import datetime
from typing import Any

from tests.conformance.cases import Case, parametrize, run
from tests.conformance.conftest import World


def filtered(name: str, build: Any, *numbers: int) -> Case:
    """A filter of people, and whom it leaves."""
    return Case(
        name,
        lambda world: build(world.table("people").select("id")).order("id"),
        [{"id": n} for n in numbers],
    )


FILTERS = [
    filtered("eq", lambda q: q.eq("name", "Ada"), 1),
    filtered("eq of a number", lambda q: q.eq("age", 17), 2),
    filtered("eq of a text with everything in it", lambda q: q.eq("name", 'Cy, "C"'), 3),
    filtered("eq of a text that is not there", lambda q: q.eq("name", "' or 1=1"), *()),
    filtered("eq of an enum", lambda q: q.eq("mood", "sad"), 3),
    filtered("eq of a date", lambda q: q.eq("born", datetime.date(1815, 12, 10)), 1),
    filtered("eq of json", lambda q: q.eq("data", "{}"), 4),
    filtered("neq leaves nulls out", lambda q: q.neq("age", 17), 1, 4),
    filtered("gt", lambda q: q.gt("age", 36), 4),
    filtered("gte", lambda q: q.gte("age", 36), 1, 4),
    filtered("lt", lambda q: q.lt("age", 36), 2),
    filtered("lte", lambda q: q.lte("age", 36), 1, 2),
    filtered("a range of two filters on one column", lambda q: q.gt("age", 17).lt("age", 52), 1),
    filtered("gt of a numeric", lambda q: q.gt("score", "1.5"), 1, 4),
    filtered("gte of a timestamp", lambda q: q.gte("created_at", "2026-01-02T03:04:05.678Z"), 1, 2, 3, 4),
    filtered("lt of a timestamp", lambda q: q.lt("created_at", "2026-01-02T03:04:05Z"), *()),
    filtered("is null", lambda q: q.is_("age", None), 3),
    filtered("is null by name", lambda q: q.is_("age", "null"), 3),
    filtered("is not null", lambda q: q.not_.is_("age", "null"), 1, 2, 4),
    filtered("in", lambda q: q.in_("id", [1, 3, 99]), 1, 3),
    filtered("in of texts with commas and quotes", lambda q: q.in_("name", ["Bob", 'Cy, "C"']), 2, 3),
    filtered("in of texts with parentheses and backslashes", lambda q: q.in_("name", ["(Ada)", "a\\b"]), *()),
    filtered("in of nothing", lambda q: q.in_("id", []), *()),
    filtered("not in", lambda q: q.not_.in_("id", [1, 2]), 3, 4),
    filtered("like with percent", lambda q: q.like("name", "%o%"), 2, 4),
    filtered("like with an asterisk", lambda q: q.like("name", "*o*"), 2, 4),
    filtered("like minds case", lambda q: q.like("name", "D%"), *()),
    filtered("ilike", lambda q: q.ilike("name", "D%"), 4),
    filtered("like any of", lambda q: q.like_any_of("name", "A%,B%"), 1, 2),
    filtered("like all of", lambda q: q.like_all_of("name", "%o%,%b%"), 2),
    filtered("ilike any of", lambda q: q.ilike_any_of("name", "a%,D%"), 1, 4),
    filtered("ilike all of", lambda q: q.ilike_all_of("name", "%O%,%B%"), 2),
    filtered("match of several columns", lambda q: q.match({"age": 36, "mood": "happy"}), 1),
    filtered("a regular expression", lambda q: q.filter("name", "match", "^[AB]"), 1, 2),
    filtered("a regular expression without case", lambda q: q.filter("name", "imatch", "^[ad]"), 1, 4),
    filtered("is distinct from", lambda q: q.filter("age", "isdistinct", "17"), 1, 3, 4),
    filtered("contains a list", lambda q: q.contains("tags", ["code"]), 1, 2),
    filtered("contains json", lambda q: q.contains("data", {"lang": {"first": "de"}}), 2),
    filtered("contained by", lambda q: q.contained_by("tags", ["code", "x"]), 2, 4),
    filtered("overlaps", lambda q: q.overlaps("tags", ["math", "y"]), 1),
    filtered("range contains", lambda q: q.contains("span", "[2,3)"), 1),
    filtered(
        "range overlaps",
        lambda q: q.filter("span", "ov", "[4,11)"),
        1,
        2,
    ),
    filtered("range lt", lambda q: q.range_lt("span", [6, 9]), 1),
    filtered("range gt", lambda q: q.range_gt("span", [6, 9]), 2),
    filtered("range gte", lambda q: q.range_gte("span", [5, 9]), 2),
    filtered("range lte", lambda q: q.range_lte("span", [6, 9]), 1),
    filtered("range adjacent", lambda q: q.range_adjacent("span", [5, 10]), 2),
    filtered("or", lambda q: q.or_("id.eq.1,id.eq.4"), 1, 4),
    filtered("or with and inside", lambda q: q.or_("age.eq.17,and(age.gt.40,name.ilike.D*)"), 2, 4),
    filtered("or with not inside", lambda q: q.or_("id.eq.1,not.and(id.gt.0,id.lt.4)"), 1, 4),
    filtered("or with quotes", lambda q: q.or_('name.eq."Cy, \\"C\\"",id.eq.1'), 1, 3),
    filtered("or with in", lambda q: q.or_("id.in.(1,2),age.is.null"), 1, 2, 3),
    filtered("or and a filter", lambda q: q.or_("id.eq.1,id.eq.2").gt("age", 20), 1),
    filtered("two ors", lambda q: q.or_("id.eq.1,id.eq.2").or_("age.eq.17,age.eq.52"), 2),
    filtered("not eq", lambda q: q.not_.eq("id", 1), 2, 3, 4),
    filtered("a key inside json", lambda q: q.filter("data->lang->>first", "eq", "en"), 1),
    filtered("an index inside json", lambda q: q.filter("data->n->>0", "eq", "1"), 1),
    filtered("the text null is no null", lambda q: q.eq("name", "null"), *()),
]


@parametrize(*FILTERS)
def test_filters(world: World, case: Case) -> None:
    run(world, case)
