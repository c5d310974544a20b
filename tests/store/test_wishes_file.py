"""The file of wishes: revised by one at a time, and whole for every reader."""

import subprocess
import sys

import pytest
from msgspec import structs

from holdfast.domain.wish import Wishes
from holdfast.policy.wishes import upgraded
from holdfast.store import wishes

ADD = (
    "import sys; from pathlib import Path; from holdfast.policy.wishes import upgraded; from holdfast.store import wishes\n"
    "for _ in range(100): wishes.change(Path(sys.argv[1]), upgraded)"
)


def test_what_is_wished_is_there_for_the_next_reader(tmp_path):
    path = tmp_path / "wishes.json"
    assert wishes.read(path) == Wishes()
    after = wishes.change(path, lambda now: structs.replace(now, drained={"replica-0": "a new card"}))
    assert after == Wishes(drained={"replica-0": "a new card"})
    assert wishes.read(path) == after


def test_several_who_wish_at_once_lose_nothing(tmp_path):
    path = tmp_path / "wishes.json"
    others = [subprocess.Popen([sys.executable, "-c", ADD, str(path)]) for _ in range(3)]
    for _ in range(100):
        wishes.change(path, upgraded)
    assert [other.wait() for other in others] == [0, 0, 0]
    assert wishes.read(path).epoch == 400


def test_a_revision_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "wishes.json"
    wishes.change(path, upgraded)

    def refuse(now: Wishes) -> Wishes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        wishes.change(path, refuse)
    assert wishes.change(path, upgraded).epoch == 2


@pytest.mark.parametrize("content", ["", "{", '{"epoch": "x"}', '{"drained": 3}'])
def test_a_damaged_file_wishes_nothing(tmp_path, content):
    path = tmp_path / "wishes.json"
    path.write_text(content)
    assert wishes.read(path) == Wishes()
