"""Stories of finding out what somebody else's program can do. They need a ForeignScene."""

from holdfast.testing.stage import ForeignScene, Stage
from holdfast.testing.story import Story, story


@story()
async def what_it_learns_carries_sentences_and_is_so(stage: Stage, scene: ForeignScene) -> None:
    told = await scene.engine.learn()
    assert told.findings
    assert all(one.why.strip() for one in told.findings), "a finding does not say how it was found"
    assert len({one.ability for one in told.findings}) == len(told.findings), "an ability was found twice"
    assert {one.ability for one in told.findings if one.has} == stage.abilities, "it is not as the stage says"
    assert told.context_tokens_max in (0, stage.context)


@story()
async def its_release_is_the_same_whenever_it_is_learnt(stage: Stage, scene: ForeignScene) -> None:
    before = scene.engine.describe()
    await scene.engine.learn()
    assert scene.engine.describe() == before is not None, "it was told to be another"


STORIES: tuple[Story, ...] = (
    what_it_learns_carries_sentences_and_is_so,
    its_release_is_the_same_whenever_it_is_learnt,
)
