"""What shells are told to complete."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.unit.cli.conftest import Command


def completed(script: str, *words: str) -> list[str]:
    line = " ".join(f"'{word}'" for word in words)
    answer = subprocess.run(
        ["bash", "-c", f"{script}\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words) - 1}\n_reactive_worker\n"
         'printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return answer.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_and_options(command: Command) -> None:
    script = command("completion", "bash").out
    assert sorted(completed(script, "reactive-worker", "st")) == ["stats", "steer"]
    assert completed(script, "reactive-worker", "run", "--conc") == ["--concurrency"]
    assert completed(script, "reactive-worker", "workers", "li") == ["list"]
    assert completed(script, "reactive-worker", "workers", "pause", "--al") == ["--all"]
    assert "list" not in completed(script, "reactive-worker", "tasks", "")
    assert "bashcompinit" in command("completion", "zsh").out


def test_fish_gets_what_each_word_means(command: Command) -> None:
    script = command("completion", "fish").out
    assert "-n '__fish_use_subcommand' -f -a submit -d 'Submit a task and print its id.'" in script
    assert "-n '__fish_seen_subcommand_from run' -l lease -d 'seconds until a silent worker" in script
    assert "silent worker\\'s tasks" in script
