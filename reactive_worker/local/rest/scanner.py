"""Reading a query parameter from left to right, with PostgREST's rules for names and quoting."""

from __future__ import annotations

import re

from reactive_worker.local.rest.errors import ApiError, parse_error

# What ends an unquoted name: punctuation of the grammar. A dash belongs to it, unless it starts an arrow.
_NAME = re.compile(r'(?:[^\s,.:()"!*>\\=-]|-(?!>)| (?=[^\s,.:()]))+')
_WORD = re.compile(r"[a-z]+")
_JSON_KEY = re.compile(r'(?:[^,.:()">-]|-(?!>))+')
# Cast targets become part of the statement, so only what can be a type's name is let through.
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*(?:\[\])*")
_LANGUAGE = re.compile(r"[A-Za-z0-9_$ ]+")
_INTEGER = re.compile(r"-?[0-9]+\Z")
_BRACES = re.compile(r"\{[^{}]*\}")


class Scanner:
    """A text and a position in it.

    Parameters
    ----------
    text:
        What to read.
    what:
        What it is, for error messages: ``select parameter``, ``filter`` ...
    """

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._at = 0

    def error(self, reason: str, back: int = 0) -> ApiError:
        """The answer to a text that does not follow the grammar; `back` moves the column to the left."""
        return parse_error(self._what, self._text, max(self._at - back, 0), reason)

    def at_end(self) -> bool:
        """True when everything is read."""
        return self._at >= len(self._text)

    def rest(self) -> str:
        """What is left, without reading it."""
        return self._text[self._at :]

    def peek(self, length: int = 1) -> str:
        """The next characters, without reading them."""
        return self._text[self._at : self._at + length]

    def take(self, token: str) -> bool:
        """Read `token` if it comes next."""
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        """Read `token`, which must come next."""
        if not self.take(token):
            found = f'"{self.peek()}"' if not self.at_end() else "end of input"
            raise self.error(f'unexpected {found} expecting "{token}"')

    def spaces(self) -> None:
        """Skip white space."""
        while self.peek().isspace():
            self._at += 1

    def remainder(self) -> str:
        """Read all that is left."""
        text, self._at = self.rest(), len(self._text)
        return text

    def until(self, stops: str) -> str:
        """Read up to the first of the characters in `stops`, or to the end."""
        start = self._at
        while not self.at_end() and self._text[self._at] not in stops:
            self._at += 1
        return self._text[start : self._at]

    def _match(self, pattern: re.Pattern[str], expected: str) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            found = f'"{self.peek()}"' if not self.at_end() else "end of input"
            raise self.error(f"unexpected {found} expecting {expected}")
        self._at = match.end()
        return match.group()

    def quoted(self) -> str:
        """Read a text in double quotes; a backslash protects the character after it."""
        self.expect('"')
        characters: list[str] = []
        while not self.take('"'):
            if self.at_end():
                raise self.error('unexpected end of input expecting "')
            self.take("\\")
            characters.append(self.peek())
            self._at += 1
        return "".join(characters)

    def name(self) -> str:
        """Read a column's name or an alias, quoted or not."""
        if self.peek() == '"':
            return self.quoted()
        return self._match(_NAME, "a column name")

    def word(self) -> str:
        """Read an operator's name."""
        return self._match(_WORD, "an operator (eq, gt, ...)")

    def json_key(self) -> str | int:
        """Read a key, or an index, of a JSON path."""
        if self.peek() == '"':
            return self.quoted()
        key = self._match(_JSON_KEY, "a JSON key")
        if not _INTEGER.match(key):
            return key
        if len(key) > 10:
            raise self.error("an index has ten characters at most; a key of digits goes in double quotes")
        return int(key)

    def type_name(self) -> str:
        """Read the name of a type to cast to."""
        return self._match(_TYPE, "the name of a type").strip()

    def language(self) -> str:
        """Read the text search configuration of ``fts(english)``."""
        self.expect("(")
        name = self._match(_LANGUAGE, "a text search configuration").strip()
        self.expect(")")
        return name

    def list_item(self) -> str:
        """Read one item of ``in.(...)``."""
        return self._item(",)")

    def logic_value(self) -> str:
        """Read a value inside ``and(...)`` or ``or(...)``; arrays may contain commas."""
        braces = _BRACES.match(self._text, self._at)
        if braces is not None:
            self._at = braces.end()
            return braces.group()
        return self._item(",)")

    def _item(self, stops: str) -> str:
        if self.peek() == '"':
            start = self._at
            text = self.quoted()
            if self.at_end() or self.peek() in stops:
                return text
            # Quotes in the middle of a text are ordinary characters.
            self._at = start
        return self.until(stops)
