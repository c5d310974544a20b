"""The contract suite. An adapter's author writes a stage, and three lines for pytest:

    class TestMine(ForeignContract):
        @pytest.fixture
        def stage(self) -> MyStage:
            return MyStage()

Every story is one test, by its name. Stories that need an ability or a mishap which the stage does not list are skipped, and say
which. A stage that costs much to open belongs into a fixture of a wider scope.
"""

import pytest

from holdfast.testing import answers, learning, lines, mishaps
from holdfast.testing.stage import ForeignScene, LineScene, Mishap, PlainScene, Scene, Stage
from holdfast.testing.story import Heard, Story, listen_to

ENGINE_STORIES: tuple[Story, ...] = (*answers.STORIES, *mishaps.STORIES)
FOREIGN_STORIES: tuple[Story, ...] = learning.STORIES
LINE_STORIES: tuple[Story, ...] = lines.STORIES


class EngineContract:
    """What everything owes that fills the Engine port."""

    @pytest.mark.parametrize("story", ENGINE_STORIES, ids=str)
    def test_engine(self, stage: Stage, story: Story) -> None:
        story.play(stage)


class ForeignContract(EngineContract):
    """What an adapter to somebody else's program owes: the ForeignEngine port."""

    @pytest.mark.parametrize("story", FOREIGN_STORIES, ids=str)
    def test_foreign(self, stage: Stage, story: Story) -> None:
        story.play(stage)


class LineContract(EngineContract):
    """What a line to a replica of ours owes: the Line port."""

    @pytest.mark.parametrize("story", LINE_STORIES, ids=str)
    def test_line(self, stage: Stage, story: Story) -> None:
        story.play(stage)


__all__ = [
    "ENGINE_STORIES",
    "FOREIGN_STORIES",
    "LINE_STORIES",
    "EngineContract",
    "ForeignContract",
    "ForeignScene",
    "Heard",
    "LineContract",
    "LineScene",
    "Mishap",
    "PlainScene",
    "Scene",
    "Stage",
    "Story",
    "listen_to",
]
