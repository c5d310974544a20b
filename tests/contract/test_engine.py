"""The contract of lines, played before every stage of our own. A story that needs more of a scripted replica is in
test_embedded.py."""

from holdfast.testing.engine_contract import LineContract, LineScene, Stage


class TestEmbedded(LineContract):
    """The fixture `stage` is in conftest.py."""


def test_the_release_has_a_whole_digest(stage: Stage) -> None:
    async def story(scene: LineScene) -> None:
        release = scene.engine.describe()
        assert release is not None
        assert len(release.digest) == 64

    stage.play(story)
