"""What is promised before the first token, and what is done after a loss."""

import pytest
from msgspec import structs

from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.domain.transcript import Transcript
from holdfast.policy.continuation import (
    Complete,
    GiveUp,
    Resume,
    after_loss,
    contract,
    derived_seed,
    pause_s,
    promise,
)


def release(exactness=Exactness.EXACT, **more):
    return Release(model="m", engine="e", digest="d", exactness=exactness, **more)


@pytest.mark.parametrize(
    ("temperature", "exactness", "word"),
    [
        (0.8, Exactness.EXACT, "exact"),
        (0.0, Exactness.EXACT, "exact"),
        (0.0, Exactness.GREEDY, "exact"),
        (0.8, Exactness.GREEDY, "fair"),
        (0.0, Exactness.FAIR, "fair"),
    ],
)
def test_the_contract_never_promises_more_than_the_engine_keeps(temperature, exactness, word):
    assert contract(Sampling(temperature=temperature), release(exactness)).word == word


@pytest.mark.parametrize(
    ("exactness", "told"),
    [
        (Exactness.EXACT, ("exact", "noise is keyed by seed and position")),
        (Exactness.GREEDY, ("exact", "greedy")),
        (Exactness.FAIR, ("fair", "no token is lost or doubled, the rest is a fair sample")),
    ],
)
def test_a_grammar_goes_along(exactness, told):
    word, why = told
    asked = Sampling(temperature=0, grammar='start: "a"')
    assert contract(asked, release(exactness)) == (word, f"{why}, and its grammar is led through what was delivered")
    assert contract(Sampling(temperature=0), release(exactness)) == told


PENALISED = Sampling(temperature=0, frequency_penalty=0.5)
JSON = Sampling(temperature=0, grammar='start: "a"')
SAME = "and it is made again from its prompt up to where it was cut"
AGAIN = "made again from its prompt up to where it was cut, it goes on if that comes out as it was delivered"


@pytest.mark.parametrize(
    ("sampling", "kind", "told"),
    [
        (Sampling(), release(by_text=True), ("fair", "continued by text")),
        (Sampling(temperature=0), release(Exactness.GREEDY, by_text=True), ("fair", "continued by text")),
        (PENALISED, release(Exactness.GREEDY), ("exact", "greedy")),
        (
            PENALISED,
            release(Exactness.GREEDY, penalties_whole=False),
            ("fair", "its penalties count anew where it was cut"),
        ),
        (JSON, release(Exactness.GREEDY, grammar=Hold.FRESH), ("exact", f"greedy, {SAME}")),
        (JSON, release(grammar=Hold.FRESH), ("exact", f"noise is keyed by seed and position, {SAME}")),
        (JSON, release(Exactness.FAIR, grammar=Hold.FRESH), ("fair", AGAIN)),
        (Sampling(grammar="start: A"), release(Exactness.GREEDY, grammar=Hold.FRESH), ("fair", AGAIN)),
        (
            structs.replace(JSON, frequency_penalty=0.5),
            release(Exactness.GREEDY, grammar=Hold.FRESH, penalties_whole=False),
            ("exact", f"greedy, {SAME}"),
        ),
        (JSON, release(grammar=Hold.NONE), ("no", "nobody here can hold it to its grammar")),
        (
            Sampling(temperature=0),
            release(greedy_across=True),
            ("fair", "greedy, and engines of other kinds on the same weights may go on with it"),
        ),
        (Sampling(), release(greedy_across=True), ("exact", "noise is keyed by seed and position")),
    ],
)
def test_what_an_engine_can_not_keep_is_said(sampling, kind, told):
    assert contract(sampling, kind) == told


def test_of_several_kinds_the_weakest_that_may_begin_is_promised():
    exact, fair = release(), release(Exactness.FAIR)
    fresh, none = release(Exactness.FAIR, grammar=Hold.FRESH), release(Exactness.FAIR, grammar=Hold.NONE)
    assert promise(Sampling(), (exact,)).word == "exact"
    assert promise(Sampling(), (exact, fair)).word == promise(Sampling(), (fair, exact)).word == "fair"
    assert promise(JSON, (exact, fresh)) == promise(JSON, (fresh, none)) == ("fair", AGAIN)
    assert promise(JSON, (exact, none)).word == "exact", "it is not given to one that can't hold it"
    assert promise(JSON, (none, none)) == ("no", "nobody here can hold it to its grammar")
    assert promise(Sampling(), ()).word == "fair"


def test_what_nobody_makes_again_as_it_was_delivered_ends():
    asked = Generation(id="g", prompt_ids=[1], max_tokens=10, sampling=JSON)
    lost = Transcript(asked, [1, 2], begun=release(grammar=Hold.FRESH))
    assert after_loss(lost, 4, 0) == Resume("continues after token 2")
    why = "it is held to a grammar, and nobody here makes its 2 tokens again as they were delivered"
    assert after_loss(lost, 4, 0, unrepeatable=True) == GiveUp(why)
    assert isinstance(after_loss(Transcript(asked, [1] * 10), 4, 0, unrepeatable=True), Complete)


def _transcript(delivered=3, moves=0, deadline=100.0):
    asked = Generation(id="g", prompt_ids=[1], max_tokens=10, deadline=deadline)
    return Transcript(asked, list(range(delivered)), moves)


def test_an_open_answer_resumes():
    assert after_loss(_transcript(), 4, 0) == Resume("continues after token 3")


def test_a_full_answer_is_complete():
    verdict = after_loss(_transcript(10), 4, 0)
    assert isinstance(verdict, Complete)
    assert verdict.finish is Finish.LENGTH


def test_it_ends_at_the_deadline_and_at_the_limit_of_moves():
    assert after_loss(_transcript(), 4, 100) == GiveUp("the request's deadline has passed")
    assert after_loss(_transcript(moves=4), 4, 0) == GiveUp("the answer has moved 4 times, the limit")


def test_the_rest_continues_from_what_was_delivered():
    rest = _transcript().rest(frozenset({"a"}))
    assert (rest.delivered_ids, rest.tried, rest.max_tokens) == ([0, 1, 2], {"a"}, 10)


def test_pauses_double_to_a_second():
    assert [pause_s(n) for n in (1, 2, 3, 5, 6, 50)] == [0.05, 0.1, 0.2, 0.8, 1.0, 1.0]


def test_a_derived_seed_differs_at_every_position_and_fits_an_int64():
    seeds = [derived_seed(seed, position) for seed in (0, 1, -5, 2**63) for position in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(7, 3) == derived_seed(7, 3)
    assert derived_seed(1, 11) != derived_seed(11, 1)
