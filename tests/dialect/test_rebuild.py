"""Every dialect's parser, cut after each token of an answer and rebuilt from the ids, says what it would have said."""

from pathlib import Path
from random import Random

import pytest
from tests.dialect.generations import GENERATIONS, folder
from tests.dialect.transcripts import Drawer, prompts, violations

from holdfast.dialect.open import open_dialect
from holdfast.dialect.vocabulary import Vocabulary

SEEDS = range(40)  # bench/rebuild.py draws more


@pytest.mark.parametrize("name", GENERATIONS)
def test_cut_anywhere_and_rebuilt_it_says_the_same(tmp_path: Path, name: str) -> None:
    made = folder(tmp_path, name)
    dialect = open_dialect(made)
    drawer, begun = Drawer(name, dialect, Vocabulary(made)), prompts(dialect)
    for seed in SEEDS:
        chance = Random(seed)
        ids = drawer.answer(chance)
        assert violations(dialect, begun[seed % len(begun)], ids, chance) == [], f"seed={seed} {ids}"
