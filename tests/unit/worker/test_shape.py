"""The shape of the worker's rooms: small constructors, one shape of duty, one list of settings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import reactive_worker
from reactive_worker.settings import Settings, SettingsOptions

ROOMS = ("worker", "store", "streams")
PACKAGE = Path(reactive_worker.__file__).parent


def constructors() -> Iterator[tuple[str, ast.arguments]]:
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for kind in ast.walk(ast.parse(path.read_text())):
                if not isinstance(kind, ast.ClassDef):
                    continue
                for part in kind.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        yield f"{path.relative_to(PACKAGE)}: {kind.name}", part.args


@pytest.mark.parametrize(("name", "arguments"), [pytest.param(*one, id=one[0]) for one in constructors()])
def test_no_constructor_takes_more_than_seven_things(name: str, arguments: ast.arguments) -> None:
    """Who needs more is several parts, or calls back into its owner."""
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    rest = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    assert len(named) - 1 + len(rest) <= 7


@pytest.mark.parametrize("path", sorted((PACKAGE / "worker").rglob("*.py")), ids=lambda path: path.name)
def test_no_public_signature_takes_anything(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            kwarg = node.args.kwarg
            assert kwarg is None or kwarg.annotation is None or ast.unparse(kwarg.annotation) != "Any", (
                node.name
            )
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            for one in given:
                told = "" if one.annotation is None else ast.unparse(one.annotation)
                assert "Callable[..., Any]" not in told, (node.name, one.arg)


def test_the_options_are_the_settings() -> None:
    def without_none(kind: str) -> str:
        return kind.removesuffix(" | None")

    settings = {field.name: without_none(str(field.type)) for field in fields(Settings)}
    options = {
        name: without_none(kind.__forward_arg__) for name, kind in SettingsOptions.__annotations__.items()
    }
    assert options == settings
