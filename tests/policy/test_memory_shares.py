"""Shares of memory: guaranteed ones are kept, largest ones hold, and nobody is locked out for good."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.tenant import Limits
from holdfast.policy.memory_shares import KEPT, OWN_CONCURRENCY, OWN_MEMORY, Shares

ROOMY = (10, 0)


def _fill(shares: Shares, limits: Limits, total=ROOMY, tokens=10, most=100) -> int:
    """Take as long as it fits; nobody else holds anything beyond the shares' own book."""
    count = 0
    while count < most and not shares.fits(limits, tokens, total, _used(shares)):
        shares.take(limits.tenant, tokens)
        count += 1
    return count


def _used(shares: Shares) -> tuple[int, int]:
    held = [shares.of(name) for name in ("a", "b", "c")]
    return sum(one.slots for one in held), sum(one.tokens for one in held)


def test_without_limits_nothing_is_asked():
    shares = Shares([Limits(tenant="a"), Limits(tenant="b")])
    assert not shares.bind(Limits(tenant="a"))
    assert _fill(shares, Limits(tenant="a")) == 100


def test_a_guaranteed_share_is_kept_free_and_its_tenant_finds_it():
    a, b = Limits(tenant="a"), Limits(tenant="b", memory_min=0.3)
    shares = Shares([a, b])
    assert shares.bind(a)  # also for those without limits of their own
    assert _fill(shares, a) == 7
    assert shares.fits(a, 10, ROOMY, _used(shares)) == KEPT
    assert _fill(shares, b, most=3) == 3


def test_what_is_kept_is_kept_in_cache_places_too():
    a, b = Limits(tenant="a"), Limits(tenant="b", memory_min=0.5)
    shares = Shares([a, b])
    assert _fill(shares, a, total=(100, 1000), tokens=100) == 5


def test_beyond_its_guaranteed_share_a_tenant_is_like_any_other():
    a, b, c = Limits(tenant="a", memory_min=0.2), Limits(tenant="b", memory_min=0.2), Limits(tenant="c")
    shares = Shares([a, b, c])
    assert _fill(shares, a) == 8  # all but b's
    assert shares.fits(c, 10, ROOMY, _used(shares)) == KEPT
    assert _fill(shares, b, most=2) == 2


def test_the_largest_share_holds_even_while_all_else_is_idle():
    a = Limits(tenant="a", memory_max=0.4)
    shares = Shares([a])
    assert _fill(shares, a) == 4
    assert shares.fits(a, 10, ROOMY, _used(shares)) == OWN_MEMORY


def test_one_answer_is_always_possible_however_small_the_share_and_large_the_answer():
    a = Limits(tenant="a", memory_max=0.01)
    shares = Shares([a])
    assert _fill(shares, a, total=(4, 100), tokens=5000) == 1


def test_concurrency_counts_what_runs_in_other_workers():
    a = Limits(tenant="a", concurrency=3)
    shares = Shares([a])
    shares.elsewhere({"a": (2, 20)})
    assert _fill(shares, a) == 1
    assert shares.fits(a, 10, ROOMY, _used(shares)) == OWN_CONCURRENCY
    shares.elsewhere({})
    assert _fill(shares, a) == 2


def test_what_others_hold_elsewhere_counts_against_what_is_kept():
    a, b = Limits(tenant="a"), Limits(tenant="b", memory_min=0.3)
    shares = Shares([a, b])
    shares.elsewhere({"a": (4, 0), "b": (3, 0)})  # b's guarantee is met over there
    assert _fill(shares, a) == 3


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 50)), max_size=80),
    st.integers(1, 40),
    st.integers(0, 2000),
)
def test_whatever_happens_guarantees_stand_and_books_balance(steps, slots, tokens_max):
    """As long as nobody's answer outgrows what it was taken for, every tenant can still get its guaranteed slots."""
    limits = {"a": Limits(tenant="a", memory_min=0.25), "b": Limits(tenant="b", memory_min=0.25, memory_max=0.5)}
    limits["c"] = Limits(tenant="c", concurrency=5)
    shares, total, held = Shares(limits.values()), (slots, tokens_max), {"a": [], "b": [], "c": []}
    for tenant, comes, tokens in steps:
        if comes:
            used = _used(shares)
            fits = not shares.fits(limits[tenant], tokens, total, used)
            if fits and used[0] < slots and (not tokens_max or used[1] + tokens <= tokens_max):
                shares.take(tenant, tokens)
                held[tenant].append(tokens)
                lacking = sum(max(0, ceil(slots * 0.25) - len(held[one])) for one in "ab" if one != tenant)
                within = tenant != "c" and len(held[tenant]) <= ceil(slots * 0.25)
                assert within or slots - _used(shares)[0] >= lacking  # what is kept for others is still there
        elif held[tenant]:
            shares.give(tenant, held[tenant].pop())
        used = _used(shares)
        assert used == (sum(map(len, held.values())), sum(map(sum, held.values())))
        assert len(held["c"]) <= 5
        assert len(held["b"]) <= max(1, slots / 2)
    for tenant, ones in held.items():
        for tokens in ones:
            shares.give(tenant, tokens)
    assert _used(shares) == (0, 0)
