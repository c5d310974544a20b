"""Blows are unforeseen, replayable, and never fall on the last one standing."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.havoc import Blow, Havoc, Hold, Pace, Standing, Strike

THREE = [Standing(f"replica-{n}", f"boot-{n}", 0.0) for n in range(3)]


def run(seed: int, pace: Pace, seconds: float) -> list[Strike]:
    """A site where every struck replica is listed again, under a new boot, 1 s later."""
    havoc, now, told = Havoc(seed, pace, 0.0), 0.0, []
    standing = list(THREE)
    while now < seconds:
        verdict = havoc.next(standing, now)
        if isinstance(verdict, Strike):
            told.append(verdict)
            standing = [one for one in standing if one.boot != verdict.boot]
            standing.append(Standing(verdict.replica, f"boot-{len(told) + 2}", now + 1.0))
        now += 0.125
    return told


def test_the_same_seed_tells_the_same_story() -> None:
    assert run(7, Pace(), 60) == run(7, Pace(), 60)
    assert run(7, Pace(), 60) != run(8, Pace(), 60)


def test_the_last_one_standing_is_spared() -> None:
    havoc = Havoc(1, Pace(first_s=0.0, every_s_min=0.0, every_s_max=0.0), 5.0)
    assert isinstance(havoc.next(THREE, 5.0), Strike)
    assert isinstance(havoc.next(THREE, 5.0), Strike)
    verdict = havoc.next(THREE, 5.0)
    assert isinstance(verdict, Hold)
    assert verdict.why == "only 1 replicas are settled, and 1 must be spared"


def test_a_replica_that_was_just_listed_does_not_count() -> None:
    havoc = Havoc(1, Pace(first_s=0.0, settled_s=1.0), 5.0)
    fresh = [Standing("replica-0", "a", 0.0), Standing("replica-1", "b", 4.5)]
    assert isinstance(havoc.next(fresh, 5.0), Hold)
    assert isinstance(havoc.next(fresh, 5.5), Strike)


def test_it_holds_until_the_blow_is_due() -> None:
    havoc = Havoc(1, Pace(first_s=2.0), 10.0)
    assert havoc.next(THREE, 11.0) == Hold(12.0, "the next blow is not due")
    first = havoc.next(THREE, 12.0)
    assert isinstance(first, Strike)
    assert (first.at, first.why) == (12.0, "blow 1 of seed 1")


@given(seed=st.integers(0, 10**9))
def test_blows_keep_their_distance_and_all_replicas_get_theirs(seed: int) -> None:
    told = run(seed, Pace(freeze_share=0.5), 120)
    gaps = [after.at - before.at for before, after in itertools.pairwise(told)]
    assert min(gaps) >= 1.5
    assert max(gaps) <= 4.0 + 1.25
    assert {strike.replica for strike in told} == {"replica-0", "replica-1", "replica-2"}
    assert {strike.blow for strike in told} == {Blow.KILL, Blow.FREEZE}


def test_kinds_are_drawn_alike() -> None:
    kinds = (Blow.RESET, Blow.LIE, Blow.KILL)
    told = [strike.blow for strike in run(3, Pace(kinds=kinds, settled_s=0.0), 600)]
    assert set(told) == set(kinds)
    assert min(told.count(kind) for kind in kinds) > len(told) / 5


def test_what_passes_leaves_its_replica_standing() -> None:
    pace = Pace(first_s=0.0, every_s_min=0.0, every_s_max=0.0, kinds=(Blow.ERROR,))
    havoc = Havoc(1, pace, 5.0)
    assert all(isinstance(havoc.next(THREE, 5.0), Strike) for _ in range(20))


def test_every_blow_has_a_word() -> None:
    assert len({blow.word for blow in Blow}) == len(Blow)
