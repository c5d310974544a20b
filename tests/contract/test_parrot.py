"""The contract played before a made-up engine: its adapter keeps it, and each bug that can be planted in the adapter is found by
the story that tells of it. So the suite itself can fail, story by story. docs/adapters.md shows the adapter and its stage."""

import re
from pathlib import Path

import pytest
from parrot_bugs import BUGS
from parrot_stage import ParrotStage
from planting import HUNG, Bug

from holdfast.testing.engine_contract import ENGINE_STORIES, FOREIGN_STORIES, LINE_STORIES, ForeignContract, Mishap

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs/adapters.md").read_text("utf-8")
STORIES = {story.name: story for story in (*ENGINE_STORIES, *FOREIGN_STORIES)}


class TestParrot(ForeignContract):
    @pytest.fixture
    def stage(self) -> ParrotStage:
        return ParrotStage()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_by_its_story(bug: Bug, tmp_path: Path) -> None:
    stage = ParrotStage(bug.planted(tmp_path), 0.5 if bug.says is HUNG else 20.0)
    with pytest.raises(BaseException, match=bug.says):
        STORIES[bug.story].play(stage)


def test_every_story_has_a_bug_that_it_finds() -> None:
    assert {bug.story for bug in BUGS} == set(STORIES)


@pytest.mark.parametrize("file", ["parrot.py", "parrot_stage.py"])
def test_the_page_shows_what_is_played_here(file: str) -> None:
    assert f"```python\n{(HERE / file).read_text('utf-8')}```" in PAGE


def test_the_page_names_every_story_and_every_mishap() -> None:
    told = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    stories = {story.name.partition("-")[0] for story in (*STORIES.values(), *LINE_STORIES)}
    assert told == stories | {mishap.name for mishap in Mishap}
