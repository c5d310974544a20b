"""A replica whose engine runs elsewhere waits for it, whatever is answered there, and shows that it does."""

import asyncio

from holdfast.app.foreign import Word, _dialled, _Shown
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused


class Jumping:
    """A clock whose sleeps take no time."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def test_a_wait_is_told_at_every_change_and_within_the_supervisors_patience():
    faults = [EngineRefused("nobody answers")] * 41 + [EngineLost("it serves another model"), BadRequest("no")]
    told: list[str] = []

    async def ask() -> bool:
        if faults:
            raise faults.pop(0)
        return True

    away: list[str] = []
    word = Word(stage=told.append, placed=told.append, away=away.append)
    asyncio.run(_dialled(ask, Jumping(), word, _Shown("http://e:1"), 10.0))
    assert told == ["waits for http://e:1: nobody answers"]
    assert away == [
        "waits for http://e:1, for 10 s: nobody answers",
        "waits for http://e:1, for 20 s: nobody answers",
        "waits for http://e:1, for 20 s: it serves another model",
        "waits for http://e:1, for 20 s: no",
    ]


def test_the_key_that_an_engine_quotes_back_is_not_told_and_the_setting_is_named():
    faults = [EngineRefused("http://e:1 answered 401: Incorrect API key provided: sk-1")]
    told: list[str] = []

    async def ask() -> bool:
        if faults:
            raise faults.pop(0)
        return True

    word = Word(stage=told.append, placed=told.append, away=told.append)
    asyncio.run(_dialled(ask, Jumping(), word, _Shown("http://e:1", "sk-1"), 10.0))
    (stage,) = told
    assert stage.startswith("waits for http://e:1: http://e:1 answered 401: Incorrect API key provided: ...")
    assert stage.endswith("is what [engine] key or keys says for it its key?")
