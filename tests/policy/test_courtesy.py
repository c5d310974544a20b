"""Who leaves a free place to another worker, and for how long."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.courtesy import PATIENCE_S, RUDE_S, Courtesy


def test_nobody_waits_elsewhere_so_nothing_is_left():
    assert not Courtesy().gives_way(0.0, 16, 15, 0, 0)


def test_who_holds_its_part_leaves_a_free_slot_to_one_that_has_less():
    assert Courtesy().gives_way(0.0, 16, 15, 0, 1)
    assert not Courtesy().gives_way(0.0, 16, 7, 8, 1)  # it has less itself
    assert not Courtesy().gives_way(0.0, 16, 8, 8, 1)  # all have their part


def test_what_nobody_takes_is_used_and_then_nothing_is_left_for_a_while():
    one = Courtesy()
    assert one.gives_way(0.0, 16, 15, 0, 1)
    assert one.gives_way(PATIENCE_S, 16, 15, 0, 1)
    assert not one.gives_way(PATIENCE_S + 0.01, 16, 15, 0, 1)
    assert not one.gives_way(0.5, 16, 15, 0, 1)
    assert one.gives_way(PATIENCE_S + 0.02 + RUDE_S, 16, 15, 0, 1)


def test_while_others_take_what_is_left_patience_begins_anew():
    one = Courtesy()
    assert all(one.gives_way(0.04 * n, 16, 15 - n, n, 1) for n in range(7))
    assert not one.gives_way(0.3, 16, 8, 8, 1)


@given(st.integers(2, 64), st.integers(2, 5), st.integers(0, 1 << 30))
def test_flooded_workers_come_to_hold_equal_parts(slots, workers, seed):
    """Each frees and refills its own; whoever has too little gets what is left. All slots belong to one at first."""
    random, held = Random(seed), [slots] + [0] * (workers - 1)
    manners = [Courtesy() for _ in held]
    now = 0.0
    for _ in range(40 * slots):
        now += 0.01
        at = random.choices(range(workers), weights=held)[0]
        held[at] -= 1
        order = [at, *random.sample([n for n in range(workers) if n != at], workers - 1)]
        for n in order:
            if not manners[n].gives_way(now, slots, held[n], sum(held) - held[n], workers - 1):
                held[n] += 1
                break
    assert sum(held) >= slots - workers
    assert max(held) - min(held) <= 2 + slots // 4
