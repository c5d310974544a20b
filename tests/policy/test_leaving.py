"""Leaving: who has to go although it runs and answers, and why; and who may stay."""

from dataclasses import dataclass

import pytest
from standings import RULES, changed, control, down, ill, serving, worker, world

from holdfast.domain.ailment import Cure
from holdfast.domain.replica import ReplicaState
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.policy import leaving
from holdfast.policy.leaving import Farewell

PAIR = (serving(), serving("replica-1"))


def why(one, seen) -> str:
    found = leaving.farewell(one, seen, RULES)
    return "" if found is None else found.why


def test_while_all_is_well_everybody_stays():
    ones = (*PAIR, worker(), control())
    seen = world(*ones)
    assert [leaving.farewell(one, seen, RULES) for one in ones] == [None] * 4


def test_an_operator_drains_with_a_reason():
    seen = world(*PAIR, wishes=Wishes(drained={"replica-0": "a new card"}))
    assert why(PAIR[0], seen) == "it is drained, a new card"
    assert why(PAIR[1], seen) == ""


def test_a_condemned_replica_leaves_with_what_was_found():
    seen = world(*PAIR, wishes=Wishes(condemned={"replica-0": "two canaries came back wrong"}))
    assert why(PAIR[0], seen) == "two canaries came back wrong"


def test_a_replica_that_is_not_wanted_leaves_at_once():
    extra = serving("replica-2", wanted=False)
    assert why(extra, world(*PAIR, extra)) == "it is not wanted any more"


def test_workers_make_before_they_break():
    old, new = worker(wanted=False), worker("gateway-0.1", state=ReplicaState.STARTING)
    assert why(old, world(old, new)) == ""
    ready = changed(new, state=ReplicaState.SERVING)
    assert why(old, world(old, ready)) == "it is not wanted any more, and all workers that are wanted serve"


def test_workers_leave_one_at_a_time():
    new = worker("gateway-0.1")
    first, second = worker("gateway-0", wanted=False), worker("gateway-1", wanted=False)
    leaves = changed(first, state=ReplicaState.DRAINING)
    assert why(second, world(leaves, second, new)) == ""
    assert why(second, world(second, new)) != ""


def test_a_stopping_site_lets_role_after_role_go():
    ones = (*PAIR, worker(), control())
    seen = world(*ones, stopping="Ctrl-C")
    assert [why(one, seen) for one in ones] == ["", "", "Ctrl-C", ""]
    rest = world(*PAIR, control(), stopping="Ctrl-C")
    assert [why(one, rest) for one in rest.standings] == ["Ctrl-C", "Ctrl-C", ""]
    assert leaving.turn(world(control(), stopping="Ctrl-C")) is Role.CONTROL


def test_the_control_plane_of_before_the_upgrade_leaves_after_the_workers():
    old, new = worker(wanted=False), worker("gateway-0.1", epoch=1)
    wishes = Wishes(epoch=1)
    assert why(control(), world(old, new, control(), wishes=wishes, epoch=1)) == ""
    assert why(control(), world(new, control(), wishes=wishes, epoch=1)) == "upgrade 1 replaces this control plane"
    assert why(control(epoch=1), world(new, control(epoch=1), wishes=wishes, epoch=1)) == ""


def test_an_upgrade_leaves_replicas_alone_unless_it_was_asked_to():
    ones = (*PAIR, worker("gateway-0.1", epoch=1), control(epoch=1))
    assert why(PAIR[0], world(*ones, wishes=Wishes(epoch=1), epoch=1)) == ""
    asked = Wishes(epoch=1, replicas_epoch=1)
    assert why(PAIR[0], world(*ones, wishes=asked, epoch=1)) == "upgrade 1 replaces this replica"


@dataclass(frozen=True)
class Hold:
    what: str
    others: tuple
    epoch: int = 1


HOLDS = [
    Hold("the supervisor itself is older", (serving("replica-1"), control(epoch=1)), epoch=0),
    Hold("a worker is older", (serving("replica-1"), worker(wanted=False), control(epoch=1))),
    Hold("the control plane is older", (serving("replica-1"), control())),
    Hold("another replica is on its way", (serving("replica-1", state=ReplicaState.STARTING), control(epoch=1))),
    Hold("another replica leaves", (serving("replica-1", state=ReplicaState.DRAINING), control(epoch=1))),
    Hold("another replica is silent", (serving("replica-1", state=ReplicaState.SUSPECT), control(epoch=1))),
    Hold("the other is in quarantine", (down("replica-1", state=ReplicaState.QUARANTINED), control(epoch=1))),
]


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: hold.what)
def test_a_replica_waits_with_its_upgrade_while(hold):
    one = serving()
    seen = world(one, *hold.others, wishes=Wishes(epoch=1, replicas_epoch=1), epoch=hold.epoch)
    assert why(one, seen) == ""


def test_a_replica_that_is_alone_has_nobody_to_wait_for():
    one = serving()
    asked = Wishes(epoch=1, replicas_epoch=1)
    assert why(one, world(one, control(epoch=1), wishes=asked, epoch=1)) == "upgrade 1 replaces this replica"
    drained = Wishes(epoch=1, replicas_epoch=1, drained={"replica-1": "a"})
    assert why(one, world(one, down("replica-1"), wishes=drained, epoch=1)) == "upgrade 1 replaces this replica"


def test_an_ailing_replica_is_renewed_while_the_others_serve():
    slow = serving(ailment=ill(Cure.RENEW, why="it is slower than its peers"))
    farewell = leaving.farewell(slow, world(slow, serving("replica-1")), RULES)
    assert farewell == Farewell(why="it is slower than its peers", blamed=True)
    loading = serving("replica-1", state=ReplicaState.STARTING)
    assert why(slow, world(slow, loading)) == ""


def test_what_is_certain_does_not_obey_the_half_rule_and_is_no_blame():
    full = serving(ailment=ill(Cure.RENEW, on_suspicion=False, why="its memory is full"))
    assert leaving.farewell(full, world(full), RULES) == Farewell(why="its memory is full", blamed=False)
    guess = serving(ailment=ill(Cure.RENEW, why="it looks slow"))
    assert leaving.farewell(guess, world(guess), RULES) is None, "the last one was taken out on suspicion"


def test_suspicion_takes_out_at_most_half_and_says_so_when_it_stops():
    ones = [serving(f"replica-{n}", ailment=ill(Cure.CONDEMN, why="it answers wrongly")) for n in range(4)]
    assert leaving.condemned(world(*ones))[0].name == "replica-0"
    out = Wishes(condemned={"replica-0": "wrong"})
    gone = down("replica-0", state=ReplicaState.QUARANTINED)
    assert leaving.condemned(world(gone, *ones[1:], wishes=out))[0].name == "replica-1"
    both = Wishes(condemned={"replica-0": "wrong", "replica-1": "wrong"})
    rest = world(gone, down("replica-1", state=ReplicaState.QUARANTINED), *ones[2:], wishes=both)
    assert leaving.condemned(rest) is None
    assert leaving.frozen(rest) == (
        2,
        "replica-2 is left in service although it answers wrongly: 3 of 4 replicas are under suspicion at once: "
        "at most half may be taken out",
    )


def test_nothing_is_frozen_while_nobody_is_held_back():
    assert leaving.frozen(world(*PAIR)) == (0, "")


def test_one_that_was_killed_on_suspicion_counts_until_it_serves_again():
    wedged = serving(ailment=ill(Cure.KILL))
    killed = down("replica-1", blamed=True)
    assert leaving.treatable(wedged, world(wedged, killed, serving("replica-2"))) is None
    assert leaving.treatable(wedged, world(wedged, serving("replica-1"), serving("replica-2"))) is not None


def test_a_worker_over_its_memory_asks_for_one_upgrade_of_all():
    ailment = ill(Cure.RENEW, on_suspicion=False)
    full = worker(ailment=ailment)
    assert leaving.bloated_worker(world(full)) == ailment
    assert leaving.bloated_worker(world(full, wishes=Wishes(epoch=1))) is None
    assert leaving.bloated_worker(world(full, wishes=Wishes(epoch=1), epoch=1)) is None
    assert leaving.bloated_worker(world(full, wishes=Wishes(epoch=1, finished_epoch=1), epoch=1)) == ailment


def test_an_upgrade_lasts_until_nothing_older_runs():
    wishes = Wishes(epoch=1)
    done = world(serving(), worker("gateway-0.1", epoch=1), control(epoch=1), wishes=wishes, epoch=1)
    assert leaving.outdated(done) == ""
    early = world(
        serving(),
        worker(wanted=False),
        worker("gateway-0.1", epoch=1, state=ReplicaState.STARTING),
        control(),
        wishes=wishes,
        epoch=1,
    )
    assert leaving.outdated(early) == "gateway-0, gateway-0.1, control"
    everything = Wishes(epoch=1, replicas_epoch=1, drained={"replica-1": "a"})
    rest = world(serving(), down("replica-1"), control(epoch=1), wishes=everything, epoch=1)
    assert leaving.outdated(rest) == "replica-0"


def test_an_engine_that_is_away_is_not_waited_for_but_two_must_serve_where_two_should():
    wish = Wishes(epoch=1, replicas_epoch=1, finished_epoch=0)
    gone = serving("replica-1", state=ReplicaState.STARTING, ready=False, stage="waits", away=True, epoch=1)
    here = serving("replica-2", epoch=1)
    assert why(PAIR[0], world(PAIR[0], gone, here, wishes=wish, epoch=1)) == "upgrade 1 replaces this replica"
    assert why(PAIR[0], world(PAIR[0], gone, wishes=wish, epoch=1)) == ""
    old = changed(gone, epoch=0)
    assert why(old, world(PAIR[0], old, down("replica-2"), wishes=wish, epoch=1)) == "upgrade 1 replaces this replica"
    ready = world(changed(PAIR[0], epoch=1), gone, here, wishes=wish, epoch=1)
    assert leaving.outdated(ready) == ""
    assert leaving.outdated(world(here, changed(gone, away=False), wishes=wish, epoch=1)) == "replica-1"
    assert leaving.outdated(world(here, old, wishes=wish, epoch=1)) == "replica-1"


def test_a_standby_is_as_good_as_one_that_serves_when_another_is_to_be_renewed():
    sick = serving(ailment=ill(Cure.RENEW, why="slow for 60 s"))
    seen = world(sick, serving("replica-1", state=ReplicaState.WARM))
    assert why(sick, seen) == "slow for 60 s"


def test_replicas_of_another_model_neither_wait_for_these_nor_count_among_them():
    small = serving("smaller-0", model="tiny", ailment=ill(Cure.RENEW, why="slow for 60 s"))
    seen = world(*PAIR, small, down("replica-2"))
    assert why(small, seen) == "", "it is the last of its kind, and suspicion is not enough"
    sick = serving(ailment=ill(Cure.RENEW, why="slow for 60 s"))
    seen = world(sick, PAIR[1], down("smaller-0", model="tiny"))
    assert why(sick, seen) == "slow for 60 s"


def test_an_upgrade_is_over_only_when_warm_ones_and_smaller_ones_are_replaced_too():
    warm = serving("replica-1", state=ReplicaState.WARM, epoch=1)
    small = serving("smaller-0", model="tiny", epoch=0)
    seen = world(serving(epoch=1), warm, small, wishes=Wishes(epoch=1, replicas_epoch=1), epoch=1)
    assert leaving.outdated(seen) == "smaller-0"
    seen = world(serving(epoch=1), changed(warm, epoch=0), wishes=Wishes(epoch=1, replicas_epoch=1), epoch=1)
    assert leaving.outdated(seen) == "replica-1"
