"""Noise is a pure function of seed, position and token, and it is Gumbel noise."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.pearl.noise import SPAN, gumbel, key

IDS = torch.arange(4096)
KNOWN_KEY = (1293516399, 2802244911)
KNOWN_NOISE = [1.2702, 3.0511, -0.7911]


def test_known_values_never_change() -> None:
    """Another build that drew otherwise could not continue today's answers: a change here needs a new BUILD."""
    assert key(0, 0) == KNOWN_KEY
    drawn = gumbel([key(1, 2)], torch.tensor([0, 1, 129279]))[0].tolist()
    assert [round(value, 4) for value in drawn] == KNOWN_NOISE


@given(st.integers(), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_token_s_noise_depends_on_nothing_else(seed: int, position: int) -> None:
    whole = gumbel([key(seed, position)], IDS)[0]
    some = torch.tensor([4095, 17, 0, 17])
    assert torch.equal(gumbel([key(9, 9), key(seed, position)], some)[1], whole[some])


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 4096))
@settings(max_examples=30, deadline=None)
def test_neighbours_are_unalike(seed: int, position: int) -> None:
    rows = gumbel([key(seed, position), key(seed, position + 1), key(seed + 1, position)], IDS)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        correlation = torch.corrcoef(torch.stack((rows[one], rows[other])))[0, 1]
        assert abs(float(correlation)) < 6 / math.sqrt(len(IDS))


def test_moments_are_gumbel_s() -> None:
    """Mean: Euler's constant; variance: pi^2 / 6. A million draws: standard errors 0.0013 and 0.0034."""
    rows = gumbel([key(5, position) for position in range(256)], IDS).double()
    assert abs(float(rows.mean()) - 0.577216) < 0.006
    assert abs(float(rows.var()) - math.pi**2 / 6) < 0.016


def test_draws_lie_within_the_span() -> None:
    low = -math.log(-math.log(0.5 * 2.0**-32))
    high = -math.log(-math.log((2**32 - 0.5) * 2.0**-32))
    assert high - low < SPAN
    rows = gumbel([key(3, position) for position in range(64)], IDS)
    assert low <= float(rows.min())
    assert float(rows.max()) <= high
