"""Supervision and the load: when another number of replicas is taken up, and when not yet."""

from msgspec import structs
from standings import NOW, RULES, down, serving, world

from holdfast.domain.procedure import Wait
from holdfast.domain.replica import ReplicaState
from holdfast.domain.wish import Wishes
from holdfast.policy.scaling import Wanted
from holdfast.policy.standing import Scale, Seen, Standing, Start
from holdfast.policy.supervision import next_step

PAIR = (serving("replica-0"), serving("replica-1"))
TRIO = (*PAIR, serving("replica-2"))


def asked(count: int, *standings: Standing, serve: int = 2, **more: object) -> Seen:
    """The load asks for so many; everything else is as it should be."""
    seen = world(*standings, **more)
    roster = structs.replace(seen.roster, replicas=min(seen.roster.replicas, serve))
    return structs.replace(
        seen, roster=roster, serve=serve, scaling=Wanted(count, "the load says so" if count != serve else "")
    )


def test_more_are_wanted_when_the_load_asks_and_nothing_when_it_does_not():
    assert next_step(asked(4, *PAIR), RULES, NOW) == Scale(count=4, why="the load says so")
    assert isinstance(next_step(asked(2, *PAIR), RULES, NOW), Wait)


def test_what_is_broken_is_mended_first():
    assert isinstance(next_step(asked(4, PAIR[0], down("replica-1")), RULES, NOW), Start)


def test_more_are_taken_up_while_others_still_start_but_fewer_only_when_all_is_calm():
    starting = serving("replica-2", state=ReplicaState.STARTING, ready=False, served_at=None, started_at=NOW)
    assert isinstance(next_step(asked(4, *PAIR, starting, serve=3), RULES, NOW), Scale)
    assert isinstance(next_step(asked(2, *PAIR, starting, serve=3), RULES, NOW), Wait)
    assert next_step(asked(2, *TRIO, serve=3), RULES, NOW) == Scale(count=2, why="the load says so")


def test_one_that_is_out_for_good_does_not_keep_the_others():
    lost = down("replica-3", state=ReplicaState.QUARANTINED)
    assert isinstance(next_step(asked(2, *TRIO, lost, serve=3), RULES, NOW), Scale)
    drained = down("replica-3")
    seen = asked(2, *TRIO, drained, serve=3, wishes=Wishes(drained={"replica-3": "a new card"}))
    assert isinstance(next_step(seen, RULES, NOW), Scale)


def test_nothing_is_taken_up_during_an_upgrade_or_against_an_operators_word():
    under_way = asked(4, *PAIR, wishes=Wishes(epoch=1, replicas_epoch=0), epoch=1)
    assert not isinstance(next_step(under_way, RULES, NOW), Scale)
    assert isinstance(next_step(asked(4, *PAIR, wishes=Wishes(count=2)), RULES, NOW), Wait)
