"""The reference of the commands, written from the parser itself.

python -m reactive_worker.cli.commands_page
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from reactive_worker.cli.app import build_parser

#: In a checkout.
PAGE = Path(__file__).parents[2] / "docs" / "commands.md"

_HEAD = """\
# Commands

*Written by `python -m reactive_worker.cli.commands_page`; a test compares the two.*

What `reactive-worker COMMAND --help` says, on one page. [Settings](settings.md) come from options, then the
environment, then `.env`; `reactive-worker --help` lists the exit codes.
"""
_TABLE = "| | |\n| --- | --- |\n"
#: Said once, for all commands.
_COMMON = frozenset({"--json", "--log-level"})


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with its parser, in the order of the help; the program itself first.

    Parameters
    ----------
    parser:
        Where to begin.
    path:
        The words that lead there: ``("workers", "list")``.

    Example
    -------
    >>> [" ".join(path) for path, _ in commands(build_parser())][:3]
    ['', 'init', 'dev']
    """
    yield path, parser
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage] - no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage] - as above
            for name, inner in cast("dict[str, argparse.ArgumentParser]", action.choices).items():
                yield from commands(inner, (*path, name))


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """A parser's arguments and options, but for ``--help`` and the commands below it.

    Example
    -------
    >>> [action.option_strings for action in arguments(build_parser())]
    [['--version'], ['--json'], ['--log-level']]
    """
    return [
        action
        for action in parser._actions  # pyright: ignore[reportPrivateUsage] - see commands
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)  # pyright: ignore[reportPrivateUsage] - see commands
    ]


def markdown() -> str:
    """The page.

    Example
    -------
    >>> "## submit" in markdown()
    True
    """
    return _HEAD + "".join(_section(path, parser) for path, parser in commands(build_parser()))


def _section(path: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    if not path:
        return f"\n## Everywhere\n\n{_table(arguments(parser))}"
    own = [action for action in arguments(parser) if _COMMON.isdisjoint(action.option_strings)]
    paragraphs = _escaped(parser.description or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return f"\n## {' '.join(path)}\n\n{text}\n{chr(10) if own else ''}{_table(own)}"


def _table(actions: list[argparse.Action]) -> str:
    return _TABLE + "".join(_row(action) for action in actions) if actions else ""


def _row(action: argparse.Action) -> str:
    if action.nargs == 0:
        value = ""
    elif isinstance(action.metavar, str):
        value = action.metavar
    elif action.choices is not None:
        value = "|".join(str(choice) for choice in action.choices)
    else:
        value = action.dest.upper()
    shown = " ".join(filter(None, (", ".join(action.option_strings), value)))
    return f"| `{_cell(shown)}` | {_cell(_escaped(action.help or ''))} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("%%", "%").replace("<", "\\<").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
