"""Splitting an SQL script into statements, each with the line it starts on."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What cannot contain a statement's end is matched as one token; everything else goes character by character.
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<line_comment>--[^\n]*)
    | (?P<block_comment>/\*)
    | (?P<escape_string>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<identifier>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<end>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """One SQL statement, without the semicolon; comments before it belong to it."""

    text: str
    #: Line of the script on which `text` starts, from 1.
    start_line: int
    #: Line of the script on which its first word stands, after comments.
    line: int


def split_statements(script: str) -> list[Statement]:
    """Split a script at the semicolons that end statements.

    Those inside strings, quoted names, dollar quotes, comments and SQL function bodies
    (``begin atomic ... end``) end none.

    Example
    -------
    >>> [s.text for s in split_statements("select ';'; select 2")]
    ["select ';'", 'select 2']
    """
    statements: list[Statement] = []
    position = start = 0
    first_word = -1
    body_depth = 0
    last_word = ""
    while position < len(script):
        match = _TOKEN.match(script, position)
        if match is None:
            raise AssertionError("every character is a token")
        kind, token, position = match.lastgroup, match.group(), match.end()
        if kind == "block_comment":
            position = _end_of_comment(script, position)
        elif kind == "dollar":
            closing = script.find(token, position)
            position = len(script) if closing < 0 else closing + len(token)
        elif kind == "word":
            last_word, body_depth = token.lower(), _depth(body_depth, last_word, token.lower())
        elif kind == "end" and body_depth == 0:
            if first_word >= 0:
                statements.append(_statement(script, start, match.start(), first_word))
            start, first_word, last_word = position, -1, ""
            continue
        if first_word < 0 and kind not in ("space", "line_comment", "block_comment"):
            first_word = match.start()
    if first_word >= 0:
        statements.append(_statement(script, start, len(script), first_word))
    return statements


def _depth(depth: int, previous: str, word: str) -> int:
    if word == "atomic" and previous == "begin":
        return depth + 1
    if depth and word == "case":
        return depth + 1
    return depth - 1 if depth and word == "end" else depth


def _end_of_comment(script: str, position: int) -> int:
    """Where a block comment ends; they nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(script, position):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(script)


def _statement(script: str, start: int, end: int, first_word: int) -> Statement:
    text = script[start:end]
    start += len(text) - len(text.lstrip())
    return Statement(text.strip(), script.count("\n", 0, start) + 1, script.count("\n", 0, first_word) + 1)
