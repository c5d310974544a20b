"""What a replica tells of an engine that is not ours."""

import pytest

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.request import Sampling
from holdfast.policy.continuation import contract
from holdfast.policy.foreign_release import completed

TOLD = Release(model="m", engine="vllm", digest="d", exactness=Exactness.GREEDY)
IDS = (Ability.IDS_IN, Ability.IDS_OUT)


def able(*abilities, kind=EngineKind.VLLM):
    found = tuple(Finding(one, one in abilities, "asked") for one in Ability)
    return Abilities(kind=kind, version="0.32.0", findings=found)


@pytest.mark.parametrize(
    ("abilities", "hold"),
    [
        ((Ability.GRAMMAR, Ability.LED), Hold.LED),
        ((Ability.GRAMMAR,), Hold.FRESH),
        ((), Hold.NONE),
        ((Ability.LED,), Hold.NONE),
    ],
)
def test_how_it_holds_a_grammar(abilities, hold):
    assert completed(TOLD, able(*IDS, *abilities), "w").grammar is hold


@pytest.mark.parametrize("missing", IDS)
def test_without_ids_either_way_it_is_continued_by_text_and_promises_no_more_than_that(missing):
    release = completed(TOLD, able(*(one for one in IDS if one is not missing)), "w", greedy_across=True)
    assert (release.by_text, release.exactness, release.greedy_across) == (True, Exactness.FAIR, False)
    assert contract(Sampling(temperature=0), release) == ("fair", "continued by text")


def test_it_helps_others_out_only_where_its_weights_are_known():
    assert completed(TOLD, able(*IDS), "w", greedy_across=True).greedy_across
    assert not completed(TOLD, able(*IDS), "", greedy_across=True).greedy_across
    assert not completed(TOLD, able(*IDS), "w").greedy_across


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(EngineKind.VLLM, False), (EngineKind.SGLANG, False), (EngineKind.LLAMACPP, False), (EngineKind.EMBEDDED, True)],
)
def test_whether_penalties_count_on_after_a_cut(kind, whole):
    release = completed(TOLD, able(*IDS, kind=kind), "w")
    assert release.penalties_whole is whole
    word = contract(Sampling(temperature=0, presence_penalty=1.0), release).word
    assert word == ("exact" if whole else "fair")


def test_what_the_adapter_said_stays():
    release = completed(TOLD, able(*IDS), "w")
    assert (release.model, release.engine, release.digest, release.version) == ("m", "vllm", "d", "0.32.0")
