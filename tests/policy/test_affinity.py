"""Who is believed to have a prompt's beginning; how much memory that takes; who gets the beginnings that nobody knows."""

import subprocess
import sys
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.policy.affinity import BLOCK, HOLDERS_MAX, NOTHING, Affinity, Found, Ring, chain


def _prompt(seed, tokens):
    return [(seed * 7919 + n) % 50_000 for n in range(tokens)]


def test_a_chats_next_turn_goes_where_its_last_one_was():
    index = Affinity(1000)
    first = _prompt(1, 200)
    index.learn(first, "a")
    assert index.find(first + _prompt(2, 90)) == Found((("a",),), 3 * BLOCK)
    assert index.find(first[:150] + _prompt(2, 90)) == Found((("a",),), 2 * BLOCK)


def test_a_prompt_of_less_than_a_block_belongs_nowhere():
    index = Affinity(1000)
    index.ring.set(frozenset("ab"))
    index.learn(_prompt(1, BLOCK), "a")
    assert index.find(_prompt(1, BLOCK)) is NOTHING
    assert len(index) == 0


def test_the_last_token_is_always_computed():
    index = Affinity(1000)
    index.learn(_prompt(1, 2 * BLOCK + 1), "a")
    assert index.find(_prompt(1, 2 * BLOCK + 1)).tokens == 2 * BLOCK
    assert index.find(list(_prompt(1, 2 * BLOCK))).tokens == BLOCK


def test_a_beginning_that_many_share_is_known_of_its_newest_holders_and_the_deepest_match_goes_first():
    index, system = Affinity(1000), _prompt(1, 130)
    for n, boot in enumerate("abcdef"):
        index.learn(system + _prompt(10 + n, 100), boot)
    assert index.find(system + _prompt(99, 70)).near == (tuple("fedc"),)
    assert len("fedc") == HOLDERS_MAX
    assert index.find(system + _prompt(10, 100) + [5] * 50) == Found((("a",), tuple("fedc")), 3 * BLOCK)


def test_a_session_is_remembered_whatever_is_said_in_it():
    index = Affinity(1000)
    index.ring.set(frozenset("abc"))
    home = index.find([1, 2, 3], "acme/7").near[0][0]
    index.learn([1, 2, 3], "c" if home != "c" else "a", "acme/7")
    assert index.find([4], "acme/7").near == ((("c" if home != "c" else "a"),),)


def test_nobody_is_asked_when_it_is_switched_off():
    index = Affinity(0)
    index.ring.set(frozenset("ab"))
    index.learn(_prompt(1, 500), "a", "s")
    assert index.find(_prompt(1, 500), "s") is NOTHING
    assert len(index) == 0


def test_unknown_beginnings_are_spread_and_a_newcomer_moves_only_its_share():
    ring = Ring()
    ring.set(frozenset("abcd"))
    keys = [chain(_prompt(n, 100))[0] for n in range(4000)]
    before = [ring.walk(key) for key in keys]
    shares = Counter(walk[0][0] for walk in before)
    assert min(shares.values()) > 600
    assert max(shares.values()) < 1500
    assert all(len(walk) == 4 for walk in before)
    ring.set(frozenset("abcde"))
    moved = [walk[0][0] for walk, was in zip(map(ring.walk, keys), before, strict=True) if walk[0] != was[0]]
    assert set(moved) == {"e"}
    assert 300 < len(moved) < 1500
    ring.set(frozenset("abcd"))
    assert [ring.walk(key) for key in keys] == before


def test_every_worker_has_the_same_ring():
    program = (
        "from holdfast.policy.affinity import Ring, chain; r = Ring(); r.set(frozenset('abcdefgh'));"
        "print([r.walk(chain([n * 31 % 9973 + i for i in range(100)])[0])[0][0] for n in range(40)])"
    )
    asked = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(asked) == 1


TURNS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.sampled_from("abc")), max_size=60)


@settings(max_examples=150, deadline=None)
@given(TURNS, st.integers(1, 30))
def test_it_never_grows_beyond_its_bound_and_never_names_somebody_who_was_not_given_that_beginning(turns, bound):
    index = Affinity(bound)
    given = set()
    for seed, tokens, boot in turns:
        prompt = _prompt(seed, tokens)
        found = index.find(prompt)
        deepest = chain(prompt)[: found.tokens // BLOCK]
        for name in found.near[0] if found.tokens else ():
            assert (name, deepest[-1]) in given
        index.learn(prompt, boot)
        given |= {(boot, block) for block in chain(prompt)}
        assert len(index) <= bound
        known = [block in index._holders for block in chain(prompt)]
        assert known == sorted(known, reverse=True)  # no block without all before it
