"""Standings: what remains of a process's history after something has happened to it."""

import pytest
from standings import NOW, changed, down, serving

from holdfast.domain.replica import Happening, IllegalMove, Load, ReplicaState
from holdfast.domain.site import Role
from holdfast.policy.restart_intensity import Death
from holdfast.policy.standing import Note, Rules, noted


def after(one, happening: Happening, **more: object):
    return noted(one, Note(name=one.name, happening=happening, why="a reason", **more), NOW, 0.5)


def test_a_death_is_written_into_the_history_with_its_jitter():
    assert after(serving(), Happening.DIED).deaths == (Death(at=NOW, served_s=500.0, why="a reason", jitter=0.5),)


def test_a_death_that_was_asked_for_does_not_count_unless_it_was_for_a_fault_of_its_own():
    told = serving(state=ReplicaState.DRAINING, told_at=NOW - 1)
    assert after(told, Happening.DIED).deaths == ()
    assert len(after(changed(told, blamed=True), Happening.DIED).deaths) == 1


def test_blame_is_taken_back_when_it_serves_again():
    started = after(down(blamed=True), Happening.STARTED)
    assert started.blamed
    assert not after(started, Happening.READY).blamed


def test_one_that_is_told_to_leave_keeps_how_many_streams_it_had():
    told = after(serving(load=Load(running=3, queued=2)), Happening.TOLD_TO_LEAVE, blamed=True)
    assert (told.state, told.streams, told.blamed) == (ReplicaState.DRAINING, 5, True)


def test_a_pardon_forgets_all_deaths():
    one = down(state=ReplicaState.QUARANTINED, deaths=(Death(at=NOW, served_s=0, why=""),), reset_at=NOW)
    let_off = after(one, Happening.PARDONED)
    assert (let_off.state, let_off.deaths, let_off.reset_at) == (ReplicaState.DOWN, (), None)


def test_an_illegal_move_is_refused():
    with pytest.raises(IllegalMove):
        after(serving(), Happening.PARDONED)


def test_each_role_has_its_grace():
    rules = Rules(replica_grace_s=1, gateway_grace_s=2, control_grace_s=3)
    assert [rules.grace_s(role) for role in (Role.REPLICA, Role.GATEWAY, Role.CONTROL)] == [1, 2, 3]


def test_one_that_stands_by_is_ready_from_then_on_and_resting_later_changes_nothing_of_that():
    started = after(down(), Happening.STARTED)
    rested = after(started, Happening.RESTED)
    assert (rested.state, rested.served_at) == (ReplicaState.WARM, NOW)
    assert rested.load_s > 0
    called = after(rested, Happening.CALLED)
    assert (called.state, called.served_at) == (ReplicaState.SERVING, NOW)
    assert after(serving(), Happening.RESTED).served_at == 500.0


def test_a_standby_that_dies_counts_like_any_other():
    assert len(after(serving(state=ReplicaState.WARM), Happening.DIED).deaths) == 1
