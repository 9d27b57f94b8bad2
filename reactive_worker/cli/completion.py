"""`completion`: what bash, zsh and fish need to complete commands and options, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import cast

from reactive_worker.cli.console import Console
from reactive_worker.cli.options import Commands, add_command

_EPILOG = """\
  bash: in ~/.bashrc: source <(reactive-worker completion bash)
  zsh:  in ~/.zshrc, after compinit: source <(reactive-worker completion zsh)
  fish: in ~/.config/fish/config.fish: reactive-worker completion fish | source
"""

_BASH = """\
_reactive_worker() {
  local current=${COMP_WORDS[COMP_CWORD]} words
  case "${COMP_WORDS[1]} ${COMP_WORDS[2]}" in
%s
    *) words="%s" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _reactive_worker reactive-worker"""

_ZSH = "autoload -U +X bashcompinit && bashcompinit"


def add(commands: Commands) -> None:
    """Register the command."""
    completion = add_command(
        commands,
        "completion",
        _completion,
        "print a script that completes commands and options",
        epilog=_EPILOG,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh, fish")


def _completion(args: argparse.Namespace, console: Console) -> int:
    parser: argparse.ArgumentParser = args.parser
    text = fish(parser) if args.shell == "fish" else bash(parser)
    if args.shell == "zsh":
        text = f"{_ZSH}\n{text}"
    console.emit({"shell": args.shell, "script": text})
    console.say(text)
    return 0


def bash(parser: argparse.ArgumentParser) -> str:
    """A script for bash; zsh takes it, too."""
    # The longer ones first: `workers list` before `workers`.
    paths = sorted(_paths(parser), key=lambda one: -len(one[0]))
    lines = [
        f'    "{" ".join(path)}{"" if len(path) > 1 else " "}"*) words="{" ".join(_words(command))}" ;;'
        for path, command in paths
        if path
    ]
    return _BASH % ("\n".join(lines), " ".join(_words(parser)))


def fish(parser: argparse.ArgumentParser) -> str:
    """A script for fish, with what each word means."""
    lines: list[str] = []
    for path, command in _paths(parser):
        condition = (
            " and ".join(f"__fish_seen_subcommand_from {name}" for name in path)
            if path
            else "__fish_use_subcommand"
        )
        head = f"complete -c reactive-worker -n '{condition}'"
        lines += [f"{head} -f -a {name} -d {_quoted(help)}" for name, help in _subcommands(command)]
        lines += [
            f"{head} -l {option[2:]} -d {_quoted(action.help or '')}"
            for action in command._actions
            for option in action.option_strings
            if option.startswith("--")
        ]
    return "\n".join(lines)


def _paths(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for name, command in _children(parser).items():
        yield from _paths(command, (*path, name))


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action.choices, dict):
            return cast("dict[str, argparse.ArgumentParser]", action.choices)
    return {}


def _subcommands(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [
        (name, (command.description or "").strip().partition("\n")[0])
        for name, command in _children(parser).items()
    ]


def _words(parser: argparse.ArgumentParser) -> list[str]:
    words = list(_children(parser))
    for action in parser._actions:
        words += [option for option in action.option_strings if option.startswith("--")]
    return words


def _quoted(text: str) -> str:
    return "'" + text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'") + "'"
