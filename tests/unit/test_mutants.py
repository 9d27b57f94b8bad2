"""The list of mutants keeps up with the product: a mutant whose text is gone would judge nothing."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT, Mutant, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_the_text_of_a_mutant_is_there_once_and_so_are_its_tests(mutant: Mutant) -> None:
    path, text = mutant.apply(ROOT)
    assert text != path.read_text(encoding="utf-8")
    assert [name for name in mutant.tests if not (ROOT / name).exists()] == []


def test_no_two_mutants_share_a_name() -> None:
    names = [mutant.name for mutant in mutants()]
    assert len(set(names)) == len(names)
