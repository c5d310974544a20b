"""Headroom: how many slots are kept, against whom, and when they are given up again."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.fair_queue import KEPT
from holdfast.policy.headroom import ACTIVE_S, MEMORY_S, WAIT_SHARE, Headroom
from holdfast.policy.memory_shares import Held

TOTAL = 100


def _needy(waits: int, share: float = 0.1, tenant: str = "calm", band: int = 0) -> Headroom:
    headroom = Headroom(share)
    for _ in range(waits):
        headroom.came(tenant, band, 50, False, 0.0)
    return headroom


def test_nothing_is_kept_before_anybody_had_to_wait():
    headroom = Headroom(0.1)
    for _ in range(100):
        headroom.came("calm", 0, 50, True, 0.0)
    assert not headroom.any
    assert headroom.complaint("greedy", 0, 50, ((1, 0), (TOTAL, 0)), 0.0) == ""


def test_each_request_that_found_no_room_adds_one_slot_up_to_the_share():
    assert [_needy(waits).kept("greedy", 0, TOTAL, 0.0) for waits in (1, 2, 9, 10, 11, 50)] == [1, 2, 9, 10, 10, 10]
    assert _needy(50, share=0.0).kept("greedy", 0, TOTAL, 0.0) == 0


def test_who_is_held_is_told_what_is_kept_and_for_whom():
    headroom = _needy(3)
    said = headroom.complaint("greedy", 0, 50, ((3, 0), (TOTAL, 0)), 0.0)
    assert said == f"{KEPT}the last 3 of 100 slots are kept for tenants that use less than their share"
    assert headroom.complaint("greedy", 0, 50, ((4, 0), (TOTAL, 0)), 0.0) == ""


def test_cache_places_are_kept_too_where_they_count():
    headroom = _needy(3)  # requests of 50 places
    assert headroom.complaint("greedy", 0, 60, ((50, 209), (TOTAL, 10_000)), 0.0).startswith(KEPT)
    assert headroom.complaint("greedy", 0, 60, ((50, 210), (TOTAL, 10_000)), 0.0) == ""
    assert headroom.complaint("greedy", 0, 60, ((50, 80), (TOTAL, 200)), 0.0) == ""  # no more than the share of them


def test_nobody_is_held_up_by_what_it_needed_itself():
    headroom = _needy(5)
    assert headroom.kept("calm", 0, TOTAL, 0.0) == 0
    headroom.came("other", 0, 50, False, 0.0)
    assert headroom.kept("calm", 0, TOTAL, 0.0) == 1


def test_a_higher_band_is_not_held_up_by_what_a_lower_one_needs():
    headroom = _needy(5, band=-1)
    assert (headroom.kept("greedy", 0, TOTAL, 0.0), headroom.kept("greedy", -1, TOTAL, 0.0)) == (0, 5)


def test_requests_that_find_room_take_a_little_of_it_away():
    headroom = _needy(5)
    for _ in range(round(2 / WAIT_SHARE)):
        headroom.came("calm", 0, 50, True, 0.0)
    assert headroom.kept("greedy", 0, TOTAL, 0.0) == 3


def test_it_is_forgotten_once_those_who_needed_it_are_quiet():
    headroom = _needy(8)
    kept = [headroom.kept("greedy", 0, TOTAL, MEMORY_S * times) for times in (0, 1, 2, 5)]
    assert kept == [8, 3, 1, 0]
    assert not headroom.any


def test_other_workers_needs_count_like_our_own():
    headroom = Headroom(0.1)
    headroom.elsewhere({("calm", 0): 3.0, ("greedy", 0): 4.0, ("low", -1): 2.0})
    assert headroom.kept("greedy", 0, TOTAL, 0.0) == 3
    assert headroom.kept("greedy", -1, TOTAL, 0.0) == 5
    assert (_needy(2).told("calm", 0), _needy(2).told("greedy", 0)) == (2.0, 0.0)
    headroom.elsewhere({})
    assert not headroom.any


def test_a_share_of_slots_is_by_weight_among_those_who_asked_of_late():
    headroom = Headroom(0.1)
    headroom.seen("a", 1.0, 0.0)
    assert headroom.modest(Held(slots=TOTAL - 1), 1.0, TOTAL)  # alone: all of them
    headroom.seen("b", 3.0, 1.0)
    assert not headroom.modest(Held(slots=30, slots_elsewhere=5), 1.0, TOTAL)  # 25, and two deviations
    assert headroom.modest(Held(slots=34), 1.0, TOTAL)
    assert headroom.modest(Held(slots=87), 3.0, TOTAL)
    assert not headroom.modest(Held(slots=88), 3.0, TOTAL)  # whatever chance may do, half of the rest is others'
    headroom.seen("a", 1.0, 2.0 + ACTIVE_S)  # and b has not asked for so long
    assert headroom.modest(Held(slots=TOTAL - 1), 1.0, TOTAL)


@given(
    st.floats(0, 0.3),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-1, 1), st.booleans(), st.floats(0, 20)), min_size=1, max_size=200
    ),
    st.integers(1, 500),
)
def test_the_price_is_bounded_and_a_free_slot_beyond_it_is_never_held(share, came, total):
    """Whatever happens: never more than the share is kept, and whoever is held finds no more free than that."""
    headroom, now = Headroom(share), 0.0
    for tenant, band, found, after_s in came:
        now += after_s
        headroom.came(tenant, band, 50, found, now)
        kept = headroom.kept("greedy", -1, total, now)
        assert 0 <= kept <= share * total + 0.5
        for free in (1, kept, kept + 1):
            held = headroom.complaint("greedy", -1, 50, ((free, 0), (total, 0)), now)
            assert bool(held) == (kept > 0 and free <= kept)
        parts = {one: headroom.kept(one, -1, total, now) for one in "abc"}
        assert max(parts.values()) <= kept
        assert kept <= ceil(sum(headroom.told(one, number) for one in "abc" for number in (-1, 0, 1)))
