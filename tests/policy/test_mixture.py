"""Who may begin an answer, and who may go on with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.request import Sampling
from holdfast.policy.continuation import contract, promise
from holdfast.policy.mixture import May, MayNot, barred, closed, may_begin, may_continue, special, together

PEARL = Release(model="m", engine="embedded", version="1", digest="aa" * 32, weights="w", greedy_across=True)
VLLM = Release(model="m", engine="vllm", version="0.32.0", digest="bb" * 32, weights="w", greedy_across=True)
GREEDY = Sampling(temperature=0)
JSON = 'start: "{}"'

RELEASES = st.builds(
    Release,
    model=st.just("m"),
    engine=st.sampled_from(["embedded", "vllm", "llamacpp"]),
    digest=st.sampled_from(["d1", "d2", "d3"]),
    exactness=st.sampled_from(Exactness),
    weights=st.sampled_from(["", "w1", "w2"]),
    by_text=st.booleans(),
    grammar=st.sampled_from(Hold),
    greedy_across=st.booleans(),
    penalties_whole=st.booleans(),
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7]),
    top_p=st.sampled_from([1.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([(), ((3, 1.0),)]),
    logprobs=st.sampled_from([-1, 0, 2]),
    ignore_eos=st.booleans(),
    grammar=st.sampled_from(["", JSON]),
)


def test_the_same_release_goes_on_with_its_answers():
    assert may_continue(PEARL, PEARL, Sampling()) == May("it is the same release")


def test_a_greedy_answer_crosses_where_both_releases_say_so():
    verdict = may_continue(PEARL, VLLM, GREEDY)
    assert verdict == May("it is greedy, and both releases let other engines on the same weights go on with it")
    for one in (PEARL, VLLM):
        for other in (structs.replace(PEARL, greedy_across=False), structs.replace(VLLM, greedy_across=False)):
            if one.digest != other.digest:
                why = may_continue(one, other, GREEDY).why
                assert why.endswith("neither may go on with the other's answers unless both releases say so")


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        (Sampling(temperature=0.1), "its tokens are drawn, each engine draws its own"),
        (Sampling(temperature=0, presence_penalty=0.1), "its tokens are penalised, each engine counts in its own way"),
        (Sampling(temperature=0, frequency_penalty=1), "its tokens are penalised, each engine counts in its own way"),
        (Sampling(temperature=0, logit_bias=((1, 2.0),)), "its tokens are biased, each engine clamps in its own way"),
        (Sampling(temperature=0, logprobs=0), "its logprobs were asked for, each engine has its own"),
        (Sampling(temperature=0, grammar=JSON), "it is held to a grammar, each engine masks in its own way"),
    ],
)
def test_what_more_than_the_weights_decides_stays(sampling, why):
    start = "it was begun on embedded 1 (release aaaaaaaa), and vllm 0.32.0 (release bbbbbbbb) would go on otherwise: "
    assert may_continue(PEARL, VLLM, sampling) == MayNot(start + why)


def test_other_weights_and_text_never_cross():
    other = structs.replace(VLLM, weights="v")
    assert may_continue(PEARL, other, GREEDY).why.endswith("is not known to have the same weights")
    nobody_knows = structs.replace(PEARL, weights=""), structs.replace(VLLM, weights="")
    assert isinstance(may_continue(*nobody_knows, GREEDY), MayNot)
    text = structs.replace(VLLM, by_text=True)
    assert may_continue(PEARL, text, GREEDY).why.endswith("one of the two takes text only")


def test_a_grammar_begins_where_it_can_be_held_and_stays_where_it_can_be_led():
    asked = Sampling(grammar=JSON)
    none, fresh = structs.replace(VLLM, grammar=Hold.NONE), structs.replace(VLLM, grammar=Hold.FRESH)
    assert may_begin(none, asked) == MayNot("vllm 0.32.0 (release bbbbbbbb) can't hold an answer to a grammar")
    assert isinstance(may_begin(none, Sampling()), May)
    assert isinstance(may_begin(fresh, asked), May)
    assert may_continue(fresh, fresh, asked).why == (
        "vllm 0.32.0 (release bbbbbbbb) can't lead a grammar through what was delivered"
    )
    assert isinstance(may_continue(fresh, fresh, Sampling()), May)


@given(RELEASES, RELEASES, SAMPLINGS)
def test_nothing_crosses_but_plain_greedy_answers_between_releases_that_both_say_so(begun, on, sampling):
    verdict = may_continue(begun, on, sampling)
    assert verdict.why
    if isinstance(verdict, May) and begun.digest != on.digest:
        assert begun.weights == on.weights != ""
        assert begun.greedy_across
        assert on.greedy_across
        assert not (begun.by_text or on.by_text)
        assert (sampling.temperature, sampling.grammar, sampling.logit_bias, sampling.logprobs) == (0, "", (), -1)
        assert sampling.presence_penalty == sampling.frequency_penalty == 0
    if isinstance(verdict, MayNot) and begun.digest == on.digest:
        assert sampling.grammar
    if not sampling.grammar:
        assert isinstance(may_continue(on, begun, sampling), May) == isinstance(verdict, May), (
            "the rule looks both ways"
        )


@given(RELEASES, RELEASES, RELEASES, SAMPLINGS)
def test_who_may_cross_twice_might_have_crossed_once(a, b, c, sampling):
    """So it does not matter whether an answer is bound to where it began or to where it is: as long as digests tell releases."""
    telling = len({one.digest for one in (a, b, c)}) == 3
    steps = may_continue(a, b, sampling), may_continue(b, c, sampling)
    if telling and all(isinstance(one, May) for one in steps):
        assert isinstance(may_continue(a, c, sampling), May)


@given(RELEASES, RELEASES, SAMPLINGS)
def test_an_answer_that_may_cross_is_never_called_exact(begun, on, sampling):
    if begun.digest != on.digest and isinstance(may_continue(begun, on, sampling), May):
        assert contract(sampling, begun).word == "fair"


@given(st.lists(RELEASES, min_size=1, max_size=4), SAMPLINGS)
def test_the_promise_is_kept_by_every_kind_that_may_begin(kinds, sampling):
    words = ["no", "fair", "exact"]
    able = [one for one in kinds if isinstance(may_begin(one, sampling), May)]
    said = promise(sampling, tuple(kinds))
    assert all(words.index(said.word) <= words.index(contract(sampling, one).word) for one in able)
    if able:
        assert said in [contract(sampling, one) for one in able]


def test_barred_is_the_sentence_and_unknown_bars_nothing():
    assert barred(None, None, Sampling()) == barred(PEARL, None, Sampling()) == barred(None, VLLM, Sampling()) == ""
    assert barred(PEARL, VLLM, Sampling()) == may_continue(PEARL, VLLM, Sampling()).why


def test_an_answer_is_orphaned_when_no_kind_may_ever_go_on_with_it():
    assert closed(PEARL, (VLLM, PEARL), Sampling()) == ""
    assert closed(PEARL, (VLLM,), GREEDY) == ""
    assert "its tokens are drawn" in closed(PEARL, (VLLM,), Sampling())
    assert closed(PEARL, (), Sampling()) == "", "nobody has told yet what is served"


def test_the_next_build_inherits_what_has_outlived_the_old_one():
    new = structs.replace(PEARL, version="2", digest="cc" * 32)
    assert "each engine draws its own" in may_continue(PEARL, new, Sampling()).why
    assert barred(PEARL, new, Sampling(), (new,)) == closed(PEARL, (new,), Sampling()) == ""
    assert barred(PEARL, new, Sampling(), (PEARL, new)), "while its own build is there, it stays with it"
    assert closed(PEARL, (structs.replace(new, weights="v"),), Sampling())
    assert closed(PEARL, (structs.replace(VLLM, version="0.33.0"),), Sampling())
    fresh = structs.replace(new, grammar=Hold.FRESH)
    assert barred(PEARL, fresh, Sampling(grammar=JSON), (fresh,))


def test_plain_means_that_the_weights_alone_decide():
    assert special(Sampling(temperature=0, top_p=0.3, top_k=4, min_p=0.1, ignore_eos=True)) == ""


def test_the_same_weights_may_stand_together():
    assert together(PEARL, VLLM)
    assert together(PEARL, structs.replace(PEARL, weights=""))
    assert not together(PEARL, structs.replace(VLLM, weights="v"))
    assert not together(structs.replace(PEARL, weights=""), structs.replace(VLLM, weights=""))


def test_the_same_model_in_other_numbers_may_stand_there_and_goes_on_with_nothing():
    quantised = structs.replace(VLLM, weights="q", folder="w")
    assert together(PEARL, quantised)
    assert together(quantised, PEARL)
    assert together(quantised, structs.replace(quantised, digest="cc" * 32, weights="r"))
    assert not together(quantised, structs.replace(PEARL, weights="q"))
    assert isinstance(may_continue(PEARL, quantised, GREEDY), MayNot)
    assert isinstance(
        may_continue(quantised, structs.replace(quantised, digest="cc" * 32, weights="r"), GREEDY), MayNot
    )
