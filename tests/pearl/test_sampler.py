"""The sampler: what each setting does, and that rows don't see each other."""

import math

import pytest
import torch
from torch import Tensor

from holdfast.domain.request import Sampling
from holdfast.pearl.noise import key
from holdfast.pearl.sampler import Choice, Taste, choose
from holdfast.pearl.sampler import _draw as draw
from holdfast.pearl.sampler import _draw_sparse as draw_sparse

LOGITS = torch.tensor([0.0, 2.0, 1.0, 2.0, -1.0, 0.5, -3.0, 1.5])


def taste(sampling: Sampling, answer: list[int] | None = None, seed: int = 0) -> Taste:
    return Taste(sampling, seed, answer or [], LOGITS)


def one(sampling: Sampling, logits: Tensor = LOGITS, answer: list[int] | None = None, position: int = 5) -> Choice:
    return choose(logits.clone()[None], [taste(sampling, answer)], [position])[0]


def often(sampling: Sampling, draws: int = 4000) -> Tensor:
    """Shares of the tokens over many positions."""
    rows = LOGITS.repeat(draws, 1)
    choices = choose(rows, [taste(sampling)] * draws, list(range(draws)))
    return torch.bincount(torch.tensor([choice.token for choice in choices]), minlength=8) / draws


def test_greedy_ties_go_to_the_lowest_id() -> None:
    assert one(Sampling(temperature=0)).token == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    wanted = torch.softmax(LOGITS / temperature, -1)
    shares = often(Sampling(temperature=temperature))
    chi_squared = float((4000 * (shares - wanted).square() / wanted).sum())
    assert chi_squared < 24.3, "7 degrees of freedom, 1 in 1000"


def test_top_k_keeps_the_likeliest() -> None:
    shares = often(Sampling(top_k=3))
    assert set(shares.nonzero()[:, 0].tolist()) == {1, 3, 7}


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    likeliest = torch.softmax(LOGITS, -1)
    assert float(likeliest[1] + likeliest[3]) < 0.65 < float(likeliest[1] + likeliest[3] + likeliest[7])
    assert set(often(Sampling(top_p=0.65)).nonzero()[:, 0].tolist()) == {1, 3, 7}
    assert set(often(Sampling(top_p=0.0), 50).nonzero()[:, 0].tolist()) == {1}


def test_min_p_is_relative_to_the_likeliest() -> None:
    assert set(often(Sampling(min_p=0.5)).nonzero()[:, 0].tolist()) == {1, 3, 7}


def test_penalties_count_the_answer_so_far() -> None:
    once = Sampling(temperature=0, presence_penalty=0.6)
    assert one(once, answer=[1, 1]).token == 3
    assert one(once, answer=[1, 3]).token == 7
    told = taste(Sampling(temperature=0, frequency_penalty=0.3))
    said = []
    for position in range(4):
        token = choose(LOGITS.clone()[None], [told], [position])[0].token
        told.said(token)
        said.append(token)
    assert said == [1, 3, 1, 3]


def test_delivered_tokens_weigh_as_much_as_new_ones() -> None:
    fresh = taste(Sampling(temperature=0, frequency_penalty=0.3))
    for token in (1, 3, 1):
        fresh.said(token)
    again = taste(Sampling(temperature=0, frequency_penalty=0.3), [1, 3, 1])
    rows = LOGITS.repeat(2, 1)
    choose(rows, [fresh, again], [9, 9])
    assert torch.equal(rows[0], rows[1])


def test_bias_can_force_and_forbid() -> None:
    assert one(Sampling(temperature=0, logit_bias=((6, 100.0),))).token == 6
    assert one(Sampling(temperature=0, logit_bias=((1, -100.0), (3, -100.0)))).token == 7


def test_logprobs_are_read_after_penalties_and_before_temperature() -> None:
    choice = one(Sampling(temperature=3.0, presence_penalty=1.0, logprobs=3), answer=[1])
    wanted = torch.log_softmax(LOGITS - torch.eye(8)[1], -1)
    assert choice.logprob is not None
    assert choice.logprob.id == choice.token
    assert choice.logprob.logprob == pytest.approx(float(wanted[choice.token]), abs=1e-6)
    assert [token for token, _ in choice.logprob.top] == [3, 7, 1]
    assert choice.logprob.top[0][1] == pytest.approx(float(wanted[3]), abs=1e-6)
    bare = one(Sampling(temperature=0, logprobs=0)).logprob
    assert bare is not None
    assert bare.top == ()


def test_a_row_that_is_not_finite_ends_alone() -> None:
    rows = LOGITS.repeat(4, 1)
    rows[1, 4] = math.nan
    rows[2, 2] = math.inf
    tastes = [taste(Sampling(temperature=t, logprobs=1)) for t in (0.0, 0.7, 0.7, 0.7)]
    choices = choose(rows, tastes, [3, 3, 3, 3])
    assert [choice.sound for choice in choices] == [True, False, False, True]
    assert choices[3].token == one(Sampling(temperature=0.7), position=3).token


def test_neighbours_change_nothing() -> None:
    tastes = [taste(Sampling(temperature=0.3 + 0.1 * n, top_p=1.0 - 0.04 * n), seed=n) for n in range(12)]
    rows = torch.randn(12, 8, generator=torch.Generator().manual_seed(1)) * 2
    together = [choice.token for choice in choose(rows.clone(), tastes, list(range(12)))]
    alone = [choose(rows[n : n + 1].clone(), [tastes[n]], [n])[0].token for n in range(12)]
    assert together == alone


def test_large_vocabularies_draw_the_same_token_from_fewer_numbers() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(40, 5000, generator=generator) * 4
    samplings = [Sampling(temperature=1.0)] * 40
    keys = [key(n, 3 * n) for n in range(40)]
    dense = draw(rows, samplings, keys)
    assert dense == [draw_sparse(row, k) for row, k in zip(rows, keys, strict=True)]
    assert len(set(dense)) > 30
