"""Escalation: restart, reset, quarantine, and what is said of the whole host."""

import pytest
from standings import NOW, RULES, changed, down, serving, worker, world

from holdfast.domain.replica import Happening, ReplicaState, StartFault
from holdfast.domain.wish import Wishes
from holdfast.policy import escalation
from holdfast.policy.restart_intensity import Death, Later
from holdfast.policy.standing import Fact, Halt, Note, Reset, Start

OFTEN = tuple(Death(at=NOW - 3 + index, served_s=5, why="it was ended by signal 9") for index in range(3))
QUARANTINED = ReplicaState.QUARANTINED


def start(one, **more):
    return escalation.start(one, world(one, **more), RULES, NOW)


def test_first_it_is_started_again():
    assert start(down()) == Start(name="replica-0", why="start replica-0: it is wanted and does not run")
    assert isinstance(start(down(deaths=OFTEN[:2])), Later)


def test_then_its_device_is_reset_where_that_can_be_done():
    one = down(deaths=OFTEN, device="cuda:1")
    step = start(one, resettable=True)
    assert isinstance(step, Reset)
    assert (step.name, step.device) == ("replica-0", "cuda:1")
    assert step.why.startswith("reset cuda:1 for replica-0: it died 3 times within 600 s, the limit is 3")


@pytest.mark.parametrize(("device", "resettable"), [("cuda:1", False), ("cpu", True), ("", True)])
def test_without_a_device_to_reset_it_is_quarantined_at_once(device, resettable):
    step = start(down(deaths=OFTEN, device=device), resettable=resettable)
    assert step == Note(
        name="replica-0",
        happening=Happening.GAVE_UP,
        why="replica-0 is quarantined: it died 3 times within 600 s, the limit is 3; "
        "the last time: it was ended by signal 9",
    )


def test_a_device_is_reset_once():
    step = start(down(deaths=OFTEN, device="cuda:1", reset_at=NOW - 100), resettable=True)
    assert isinstance(step, Note)
    assert step.why.endswith("the last time: it was ended by signal 9, also after cuda:1 was reset")


@pytest.mark.parametrize("code", list(StartFault))
def test_a_start_that_can_not_succeed_is_not_repeated(code):
    death = Death(at=NOW, served_s=0, why="")
    one = down(deaths=(death,), load_s=20, fact=Fact(pid=7, exit_code=code, last_words="what was wrong"))
    assert start(one) == Note(
        name="replica-0", happening=Happening.GAVE_UP, why="replica-0 can't be started: what was wrong"
    )


def test_a_crash_is_no_faulty_start():
    death = Death(at=NOW - 1, served_s=0, why="")
    assert isinstance(start(down(deaths=(death,), fact=Fact(pid=7, exit_code=1))), Start)
    served = Death(at=NOW - 1, served_s=3, why="")
    assert isinstance(start(down(deaths=(served,), fact=Fact(pid=7, exit_code=3))), Start)


def test_half_of_a_hosts_replicas_in_quarantine_is_told_as_the_hosts_trouble():
    out = down("replica-0", state=QUARANTINED, since=NOW, why="replica-0 is quarantined: it died 3 times")
    assert escalation.alarm(world(out, serving("replica-1"))) == (
        "1 of 2 replicas of this host are in quarantine (replica-0): quarantine this host and look for a common cause; "
        "the last one says: replica-0 is quarantined: it died 3 times"
    )
    assert escalation.alarm(world(out, serving("replica-1"), serving("replica-2"))) == ""
    assert escalation.alarm(world(down("replica-0", state=QUARANTINED))) == "", "one replica alone is no crowd"


def test_a_site_that_never_came_up_ends_and_one_that_has_served_does_not():
    out = down(state=QUARANTINED, why="replica-0 can't be started: no config.json")
    assert escalation.hopeless(world(out)) == Halt(why="replica-0 can't be started: no config.json")
    assert escalation.hopeless(world(changed(out, load_s=3.0))) is None
    assert escalation.hopeless(world(out, serving("replica-1"))) is None
    condemned = Wishes(condemned={"replica-0": "wrong"})
    assert escalation.hopeless(world(out, wishes=condemned)) is None


def test_new_workers_that_can_not_start_do_not_end_a_site_whose_old_ones_serve():
    death = Death(at=NOW, served_s=0, why="")
    new = worker("gateway-0.1", state=ReplicaState.DOWN, load_s=0, deaths=(death,), alive=False, exit_code=2)
    assert escalation.hopeless(world(serving(), new, worker(wanted=False))) is None
    assert escalation.hopeless(world(serving(), new)) == Halt(why="gateway-0.1 can't be started: it gave no reason")


def test_a_smaller_model_that_never_comes_up_ends_no_site_and_saves_none():
    never = {"state": QUARANTINED, "load_s": 0.0, "why": "it can't be started"}
    assert escalation.hopeless(world(serving(), down("smaller-0", model="tiny", **never))) is None
    halted = escalation.hopeless(world(down(**never), serving("smaller-0", model="tiny")))
    assert halted == Halt(why="it can't be started")
