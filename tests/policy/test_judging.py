"""Judging: what has happened to a process, and what silence costs it."""

import pytest
from msgspec import structs
from standings import NOW, RULES, changed, control, down, ill, serving, worker, world

from holdfast.domain.ailment import Cure
from holdfast.domain.replica import Happening, Load, ReplicaState
from holdfast.domain.wish import Wishes
from holdfast.policy import judging
from holdfast.policy.standing import Fact, Kill, Note

DRAINING = ReplicaState.DRAINING


def test_silence_is_counted_from_the_last_sign_the_start_of_service_or_our_own():
    one = serving(heard_at=NOW - 60)
    assert judging.silence_s(one, world(one), NOW) == 60
    assert judging.silence_s(changed(one, served_at=NOW - 4), world(one), NOW) == 4
    assert judging.silence_s(one, world(one, trusted_since=NOW - 2), NOW) == 2
    assert judging.silence_s(changed(one, served_at=None), world(one), NOW) == 0
    assert judging.silence_s(control(), world(control()), NOW) == 0


def test_one_that_has_announced_itself_and_can_not_be_heard_is_silent_for_a_new_supervisor_too():
    adopted = changed(
        serving(heard_at=None), state=ReplicaState.STARTING, served_at=None, announced_at=NOW - 4, ready=False
    )
    seen = world(adopted, serving("replica-1"))
    assert judging.silence_s(adopted, seen, NOW) == 4
    assert judging.note(adopted, seen, RULES, NOW).happening is Happening.SILENT
    assert judging.silence_s(changed(adopted, announced_at=None), seen, NOW) == 0  # it loads


def test_one_that_serves_and_says_that_it_ends_its_engine_is_silent_from_then_on_only():
    fact = Fact(alive=True, pid=7, stage="ends its engine")
    ending = structs.replace(serving(), fact=fact, staged_at=NOW - 1)
    seen = world(ending, serving("replica-1"))
    assert judging.silence_s(ending, seen, NOW) == 1
    assert judging.note(ending, seen, RULES, NOW) is None
    assert judging.kill(world(changed(ending, state=ReplicaState.SUSPECT)), RULES, NOW + 5) is not None, "not for ever"


def test_a_worker_without_a_pulse_is_not_judged_by_it():
    mute = worker(heard_at=None)
    assert judging.silence_s(mute, world(mute), NOW) == 0
    assert judging.kill(world(mute), RULES, NOW) is None


def test_a_frozen_worker_is_killed():
    frozen = worker(heard_at=NOW - 3.5)
    assert judging.kill(world(frozen, worker("gateway-1")), RULES, NOW) == Kill(
        name="gateway-0", why="kill gateway-0 (pid 8): it gave no sign of life for 3.5 s, the limit is 3 s"
    )
    assert judging.kill(world(worker(heard_at=NOW - 2.5)), RULES, NOW) is None


def test_a_worker_that_freezes_while_it_leaves_is_killed_too():
    frozen = worker(heard_at=NOW - 3.5, state=DRAINING, since=NOW - 4, wanted=False)
    assert isinstance(judging.kill(world(frozen, worker("gateway-0.1")), RULES, NOW), Kill)


def test_frozen_workers_are_killed_one_at_a_time():
    frozen = worker(heard_at=NOW - 4)
    other = worker("gateway-1", heard_at=NOW - 4, killed_at=NOW - 0.5)
    assert judging.kill(world(frozen, other), RULES, NOW) is None
    born = worker("gateway-1", state=ReplicaState.STARTING, started_at=NOW - 1, served_at=None)
    assert judging.kill(world(frozen, born), RULES, NOW) is None
    slow = changed(born, started_at=NOW - 11)
    assert judging.kill(world(frozen, slow), RULES, NOW) is not None, "a worker that does not come up shields nobody"


def test_all_replicas_silent_at_once_are_not_judged_at_first():
    silent = (
        serving(heard_at=NOW - 6, state=ReplicaState.SUSPECT),
        serving("replica-1", heard_at=NOW - 6, state=ReplicaState.SUSPECT),
    )
    assert judging.all_silent(world(*silent), RULES, NOW)
    assert judging.kill(world(*silent, doubting_since=NOW), RULES, NOW) is None
    assert judging.kill(world(*silent, doubting_since=NOW - 25), RULES, NOW) is not None


def test_a_replica_that_falls_silent_while_it_leaves_is_killed():
    stuck = serving(heard_at=NOW - 6, state=DRAINING, since=NOW - 7, told_at=NOW - 7)
    assert judging.kill(world(stuck, serving("replica-1")), RULES, NOW) == Kill(
        name="replica-0", why="kill replica-0 (pid 7): it answered no ping for 6.0 s, the limit is 5 s"
    )
    assert judging.kill(world(stuck, stopping="Ctrl-C"), RULES, NOW) is None, "a stopping site waits for the grace"


def test_one_that_does_not_leave_is_killed_also_when_its_killer_died_with_an_earlier_supervisor():
    late = serving(state=DRAINING, since=NOW - 40)
    assert judging.kill(world(late), RULES, NOW) == Kill(
        name="replica-0", why="kill replica-0 (pid 7): it should have left 10 s ago"
    )
    assert judging.kill(world(late, trusted_since=NOW - 20), RULES, NOW) is None


def test_a_wedged_replica_is_killed_with_what_was_found():
    wedged = serving(ailment=ill(Cure.KILL, why="no step for 6 s with 3 answers under way"))
    assert judging.kill(world(wedged, serving("replica-1")), RULES, NOW) == Kill(
        name="replica-0", why="kill replica-0 (pid 7): no step for 6 s with 3 answers under way", suspected=True
    )
    assert judging.kill(world(wedged), RULES, NOW) is None, "the last one was killed on suspicion"
    sure = serving(ailment=ill(Cure.KILL, on_suspicion=False))
    assert judging.kill(world(sure), RULES, NOW) is not None


def test_nobody_is_killed_twice_in_a_moment():
    late = serving(state=DRAINING, since=NOW - 40, killed_at=NOW - 1)
    assert judging.kill(world(late), RULES, NOW) is None


def test_a_drained_replica_is_told_to_leave():
    one = serving()
    seen = world(one, serving("replica-1"), wishes=Wishes(drained={"replica-0": "a new card"}))
    assert judging.note(one, seen, RULES, NOW) == Note(
        name="replica-0",
        happening=Happening.TOLD_TO_LEAVE,
        why="replica-0 (pid 7) has to leave: it is drained, a new card",
    )
    assert judging.note(changed(one, state=DRAINING), seen, RULES, NOW) is None


def test_one_that_is_drained_while_it_loads_is_told_too():
    loading = changed(serving(), state=ReplicaState.STARTING, ready=False)
    seen = world(loading, wishes=Wishes(drained={"replica-0": "a new card"}))
    note = judging.note(loading, seen, RULES, NOW)
    assert (note.happening, note.blamed) == (Happening.TOLD_TO_LEAVE, False)


def test_a_start_that_comes_further_may_take_long():
    stage = "weights loaded 12/163 shards"
    one = changed(
        serving(heard_at=None), state=ReplicaState.STARTING, served_at=None, started_at=NOW - 900, ready=False
    )
    loading = changed(one, staged_at=NOW - 299, stage=stage)
    assert judging.kill(world(loading), RULES, NOW) is None
    assert judging.kill(world(changed(loading, staged_at=NOW - 301)), RULES, NOW) == Kill(
        name="replica-0",
        why=f"kill replica-0 (pid 7): its start has come no further for 301 s than this: {stage}",
    )
    earlier = changed(loading, started_at=NOW - 10, staged_at=NOW - 2000)
    assert judging.kill(world(earlier), RULES, NOW) is None, "the stage of an earlier life"


def test_one_that_ends_its_engine_can_not_be_heard_and_has_its_grace_for_it():
    leaving = serving(heard_at=None, state=DRAINING, since=NOW - 20, told_at=NOW - 20, stage="ends its engine", boot="")
    assert judging.kill(world(leaving), RULES, NOW) is None
    assert judging.kill(world(changed(leaving, stage="")), RULES, NOW) is not None, "silence, without that word"
    late = changed(leaving, since=NOW - 36)
    assert judging.kill(world(late), RULES, NOW) == Kill(
        name="replica-0", why="kill replica-0 (pid 7): it should have left 6 s ago"
    )
    serves = changed(leaving, state=ReplicaState.SUSPECT)
    assert judging.kill(world(serves), RULES, NOW) is not None, "nobody is spared who has not to leave"


def test_the_condemned_are_quarantined_once_they_are_down_until_they_are_let_off():
    one = down()
    wishes = Wishes(condemned={"replica-0": "two canaries came back wrong"})
    assert judging.note(one, world(one, wishes=wishes), RULES, NOW) == Note(
        name="replica-0",
        happening=Happening.GAVE_UP,
        why="replica-0 is quarantined: two canaries came back wrong; when that is mended: holdfast undrain replica-0",
    )
    kept = down(state=ReplicaState.QUARANTINED)
    assert judging.note(kept, world(kept, wishes=wishes), RULES, NOW) is None
    assert judging.note(kept, world(kept, wishes=Wishes(pardons={"replica-0": 1})), RULES, NOW) == Note(
        name="replica-0", happening=Happening.PARDONED, why="replica-0 was let off: it may run again"
    )


def test_a_pardon_is_granted_once_and_only_to_one_that_is_down():
    wishes = Wishes(pardons={"replica-0": 2})
    granted = down(state=ReplicaState.QUARANTINED, pardons=2)
    assert judging.note(granted, world(granted, wishes=wishes), RULES, NOW) is None
    assert judging.note(serving(), world(serving(), wishes=wishes), RULES, NOW) is None


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (Fact(pid=7, exit_code=-11), "replica-0 (pid 7) was ended by signal 11"),
        (Fact(pid=7, exit_code=5, last_words="out of memory"), "replica-0 (pid 7) ended with code 5: out of memory"),
        (Fact(pid=7), "replica-0 (pid 7) is gone"),
    ],
)
def test_a_death_says_how_it_came(fact, why):
    dead = changed(serving(load=Load()), name="replica-0")
    dead = type(dead)(**{**{name: getattr(dead, name) for name in dead.__struct_fields__}, "fact": fact})
    assert judging.note(dead, world(), RULES, NOW) == Note(name="replica-0", happening=Happening.DIED, why=why)
