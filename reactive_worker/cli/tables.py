"""Tables for people, drawn by rich: imported when one is drawn, for it takes as long as all of `--help`."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console as Screen
from rich.table import Table
from rich.text import Text

from reactive_worker.access.safe_text import safe_text
from reactive_worker.cli.styled import Styled

_GAP = 2
_NUMBER = re.compile(r"-?[\d,]+(/\d+)?")
#: The last column is not made narrower than this.
_LEAST = 8


def lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Styled]],
    *,
    width: int,
    optional: Sequence[str] = (),
    colour: Literal["standard"] | None = None,
) -> list[str]:
    """The lines of a table without frames.

    Parameters
    ----------
    heads, rows:
        Cells are text of any origin: rich sees no markup in it, a terminal no escape.
    width:
        Columns there are. The last column is cut with an ellipsis where there are too few.
    optional:
        Names of columns that are left out, in this order, until the rest fits.
    colour:
        None: no colours.

    Example
    -------
    >>> lines(("a", "b"), [("[/x]", "1")], width=80)
    ['a     b', '[/x]  1']
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    shown = _fitting(heads, cells, width, optional)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for index in shown:
        last = index == shown[-1]
        numbers = bool(cells) and all(_NUMBER.fullmatch(row[index].plain) for row in cells)
        table.add_column(
            Text(heads[index]),
            justify="right" if numbers else "left",
            no_wrap=not last,
            overflow="ellipsis",
            min_width=min(_LEAST, cell_len(heads[index])) if last else None,
        )
    for row in cells:
        table.add_row(*(row[index] for index in shown))
    out = io.StringIO()
    screen = Screen(
        file=out,
        width=width,
        color_system=colour,
        force_terminal=colour is not None,
        no_color=colour is None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    screen.print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _text(cell: str | Styled) -> Text:
    text, style = (cell, "") if isinstance(cell, str) else (cell.text, cell.style)
    # The text's own say wins over its column's: the last column may be made narrow, and is never wrapped.
    return Text(safe_text(text), style=style, no_wrap=True, overflow="ellipsis")


def _fitting(
    heads: Sequence[str], cells: Sequence[Sequence[Text]], width: int, optional: Sequence[str]
) -> list[int]:
    """The columns that are shown."""
    wide = [
        max(cell_len(head), *(row[index].cell_len for row in cells), 0) for index, head in enumerate(heads)
    ]
    shown = [*range(len(heads))]
    for name in optional:
        last = shown[-1]
        needed = sum(wide[index] + _GAP for index in shown if index != last) + min(wide[last], _LEAST)
        if needed <= width:
            break
        shown = [index for index in shown if heads[index] != name]
    return shown
