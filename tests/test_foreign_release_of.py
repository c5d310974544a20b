"""What a replica of a foreign engine answers as: nothing is promised of an engine outside that was measured of our own."""

from pathlib import Path

import pytest
from msgspec import structs

from holdfast.app.foreign import release_of
from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.release import Exactness, Release
from holdfast.domain.settings import Settings
from holdfast.domain.settings_engine import EngineSettings
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign import ScriptedForeign
from holdfast.sim.scripted import Script, ScriptedCore

ABLE = Abilities(
    kind=EngineKind.SGLANG,
    version="0.5.23",
    findings=tuple(Finding(one, True, "it was tried") for one in (Ability.IDS_IN, Ability.IDS_OUT)),
)


class Greedy(ScriptedForeign):
    """Its adapter says what it would say of an engine in fp32."""

    def describe(self) -> Release | None:
        return Release(model="m", engine="sglang", digest="d", exactness=Exactness.GREEDY)


def told(folder: Path, engine: EngineSettings, outside: bool, **replica: object) -> Release:
    (folder / "config.json").write_text("{}")
    plain = Settings()
    settings = structs.replace(
        plain,
        model=structs.replace(plain.model, path=str(folder), name="m"),
        replica=structs.replace(plain.replica, **replica),
        engine=engine,
    )
    return release_of(Greedy(ScriptedCore(Script()), MonotonicClock()), ABLE, settings, outside=outside)


MIXED = EngineSettings(mix=("sglang=http://h:1",))
FURTHER = EngineSettings(args=("--dtype", "bfloat16"))


@pytest.mark.parametrize(
    ("engine", "outside", "replica", "word"),
    [
        (EngineSettings(), False, {}, Exactness.GREEDY),
        (MIXED, True, {}, Exactness.FAIR),
        (MIXED, False, {}, Exactness.GREEDY),
        (FURTHER, False, {}, Exactness.FAIR),
        (EngineSettings(), False, {"dtype": "bf16"}, Exactness.FAIR),
        (EngineSettings(), False, {"devices": "cuda:0"}, Exactness.FAIR),
    ],
)
def test_greedy_is_exact_only_where_it_was_measured(tmp_path, engine, outside, replica, word):
    assert told(tmp_path, engine, outside, **replica).exactness is word


def test_an_engine_outside_is_another_release_than_our_own_by_the_same_name(tmp_path):
    assert told(tmp_path, MIXED, outside=True).digest != told(tmp_path, MIXED, outside=False).digest


def test_the_weights_of_an_engine_outside_are_vouched_for_by_a_mix(tmp_path):
    """Else those beside it would never stand on one roster with it."""
    assert told(tmp_path, EngineSettings(), outside=False).weights
    assert not told(tmp_path, EngineSettings(), outside=True, url="http://h:1").weights
    assert told(tmp_path, EngineSettings(mix=("embedded",)), outside=True, url="http://h:1").weights
