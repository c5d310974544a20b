"""What a replica of a foreign engine answers as: nothing is promised of an engine outside that was measured of our own."""

import struct
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.app.foreign import release_of
from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.release import Exactness, Release
from holdfast.domain.request import Sampling
from holdfast.domain.settings import Settings
from holdfast.domain.settings_engine import EngineSettings
from holdfast.host.clock import MonotonicClock
from holdfast.policy.mixture import May, may_continue, may_inherit, together
from holdfast.sim.foreign import ScriptedForeign
from holdfast.sim.scripted import Script, ScriptedCore
from holdfast.store.model_folder import weights_of

ABLE = Abilities(
    kind=EngineKind.SGLANG,
    version="0.5.23",
    findings=tuple(Finding(one, True, "it was tried") for one in (Ability.IDS_IN, Ability.IDS_OUT)),
)


class Greedy(ScriptedForeign):
    """Its adapter says what it would say of an engine in fp32."""

    def describe(self) -> Release | None:
        return Release(model="m", engine="sglang", digest="d", exactness=Exactness.GREEDY)


def told(
    folder: Path, engine: EngineSettings, outside: bool, abilities: Abilities = ABLE, **replica: object
) -> Release:
    (folder / "config.json").write_text("{}")
    plain = Settings()
    settings = structs.replace(
        plain,
        model=structs.replace(plain.model, path=str(folder), name="m"),
        replica=structs.replace(plain.replica, **replica),
        engine=engine,
    )
    return release_of(Greedy(ScriptedCore(Script()), MonotonicClock()), abilities, settings, outside=outside)


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


GREEDY = Sampling(temperature=0)
LLAMACPP = structs.replace(ABLE, kind=EngineKind.LLAMACPP)
ACROSS = EngineSettings(mix=("llamacpp=/opt/llama-server",), greedy_across=True)


def write_gguf(path: Path, file_type: int, made_of: str = "", rest: bytes = b"weights") -> None:
    """As much of one as says what it is."""
    key, text = b"holdfast.weights", made_of.encode()
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 2, 17) + b"general.file_type" + struct.pack("<II", 4, file_type)
    path.write_bytes(head + struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(text)) + text + rest)


def beside(folder: Path, outside: bool = False) -> tuple[Release, Release]:
    """What an engine on the folder itself tells, and llama.cpp on its GGUF."""
    return told(folder, ACROSS, outside=False), told(folder, ACROSS, outside, LLAMACPP)


def test_a_gguf_that_was_written_of_the_folder_in_fp32_is_the_same_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_gguf(tmp_path / "m.gguf", 0, weights_of(tmp_path))
    own, theirs = beside(tmp_path)
    assert (theirs.weights, theirs.folder) == (own.weights, "")
    assert isinstance(may_continue(own, structs.replace(theirs, engine="llamacpp", digest="e"), GREEDY), May)


@pytest.mark.parametrize(
    ("file_type", "made_of"), [(32, None), (0, ""), (0, "cd" * 32)], ids=["bf16", "no word", "of another folder"]
)
def test_any_other_gguf_is_the_same_model_in_other_numbers(tmp_path, file_type, made_of):
    (tmp_path / "config.json").write_text("{}")
    write_gguf(tmp_path / "m.gguf", file_type, weights_of(tmp_path) if made_of is None else made_of)
    own, theirs = beside(tmp_path)
    assert theirs.folder == own.weights != theirs.weights
    assert together(own, theirs), "a mix of both serves"
    for one, other in ((own, theirs), (theirs, own)):
        assert may_continue(one, other, GREEDY).why.endswith("is not known to have the same weights")


def test_another_gguf_in_its_place_is_another_release_and_inherits_nothing(tmp_path):
    write_gguf(tmp_path / "m.gguf", 0)
    _, before = beside(tmp_path)
    write_gguf(tmp_path / "m.gguf", 0, rest=b"others!")
    _, after = beside(tmp_path)
    assert len({before.weights, after.weights}) == len({before.digest, after.digest}) == 2
    assert not isinstance(may_inherit(before, after, GREEDY), May)


def test_all_parts_of_a_gguf_count_and_what_llama_cpp_does_not_open_does_not(tmp_path):
    for number in (1, 2):
        write_gguf(tmp_path / f"m-0000{number}-of-00002.gguf", 0)
    write_gguf(tmp_path / "n.gguf", 0)
    _, before = beside(tmp_path)
    write_gguf(tmp_path / "n.gguf", 0, rest=b"others!")
    assert beside(tmp_path)[1].weights == before.weights
    write_gguf(tmp_path / "m-00002-of-00002.gguf", 0, rest=b"others!")
    assert beside(tmp_path)[1].weights != before.weights


def test_no_other_engine_is_judged_by_a_gguf_beside_its_weights_nor_one_outside_by_ours(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    alone = weights_of(tmp_path)
    write_gguf(tmp_path / "m.gguf", 2)
    own, outside = beside(tmp_path, outside=True)
    assert own.weights == outside.weights == alone
