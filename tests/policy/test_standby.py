"""Standby: who of the loaded serves. Each test names what is seen and reads what is said."""

from msgspec import structs
from standings import NOW, RULES, down, ill, serving, world

from holdfast.domain.ailment import Cure
from holdfast.domain.release import Release
from holdfast.domain.replica import Happening, Load, ReplicaState
from holdfast.domain.roster import Place, Roster
from holdfast.domain.wish import Wishes
from holdfast.policy import standby
from holdfast.policy.standing import Kill, Note, Publish, Seen, Standing
from holdfast.policy.supervision import next_step


def warm(name: str = "replica-2", **more: object) -> Standing:
    return serving(name, **{"state": ReplicaState.WARM, "since": 600.0, **more})


def starting(name: str = "replica-2", **more: object) -> Standing:
    return serving(name, state=ReplicaState.STARTING, served_at=None, **more)


def seen(*standings: Standing, serve: int = 2, warm: int = 1, **more: object) -> Seen:
    return structs.replace(world(*standings, **more), serve=serve, warm=warm)


def test_one_that_becomes_ready_serves_while_too_few_do_and_stands_by_after_that():
    one = starting()
    assert standby.ready(one, seen(serving("replica-0"), one)).happening is Happening.READY
    told = standby.ready(one, seen(serving("replica-0"), serving("replica-1"), one))
    assert told.happening is Happening.RESTED
    assert told.why == "replica-2 (pid 7) is ready and stands by: 2 serve"


def test_without_standbys_everybody_serves():
    one = starting()
    assert (
        standby.ready(one, seen(serving("replica-0"), serving("replica-1"), one, warm=0)).happening is Happening.READY
    )
    everybody = structs.replace(seen(serving("replica-0"), one), serve=None)
    assert standby.ready(one, everybody).happening is Happening.READY


def test_adopted_ones_go_on_as_they_were_in_whatever_order_they_are_heard():
    served, stood_by = starting("replica-0", pid=11), starting("replica-1", pid=12)
    places = (
        Place(replica="replica-0", address="a", boot="b0", pid=11),
        Place(replica="replica-1", address="a", boot="b1", pid=12, weight=0.0, warm=True),
    )
    before = seen(served, stood_by, serve=1, roster=Roster(epoch=3, replicas=1, places=places))
    assert standby.ready(stood_by, before).happening is Happening.RESTED
    assert standby.ready(served, before).happening is Happening.READY
    assert standby.note(structs.replace(stood_by, state=ReplicaState.WARM), before) is None, "the other one does serve"


def test_the_one_that_stood_by_longest_is_called_when_one_is_lost():
    ones = (down("replica-0"), serving("replica-1"), warm("replica-2", since=700.0), warm("replica-3", since=650.0))
    step = next_step(seen(*ones, warm=2), RULES, NOW)
    assert step == Note(
        name="replica-3",
        happening=Happening.CALLED,
        why="replica-3 (pid 7) stood by and is called: 1 of 2 replicas serve",
    )


def test_nobody_is_called_who_is_ill_unheard_or_meant_to_leave():
    sick = warm("replica-2", ailment=ill(Cure.RENEW))
    mute = warm("replica-3", ready=False)
    asked = warm("replica-4")
    one = seen(down("replica-0"), serving("replica-1"), sick, mute, asked, wishes=Wishes(drained={"replica-4": "x"}))
    assert [standby.note(other, one) for other in (sick, mute, asked)] == [None, None, None]


def test_one_of_the_release_that_serves_goes_first():
    other = Release(model="m", engine="scripted", digest="d2")
    ones = (serving("replica-1"), warm("replica-2", since=1.0, release=other), warm("replica-3", since=900.0))
    assert next_step(seen(*ones), RULES, NOW).name == "replica-3"


def test_on_a_mixed_site_one_of_the_kind_that_is_lost_goes_first():
    pearl, vllm = (Release(model="m", engine="e", digest=digest, weights="w") for digest in ("p", "v"))
    ones = (serving("replica-1", release=pearl), warm("replica-2", since=1.0, release=pearl))
    ones += (warm("replica-3", since=900.0, release=vllm),)
    one = seen(*ones)
    both = structs.replace(one, roster=structs.replace(one.roster, release=pearl, kinds=(pearl, vllm)))
    assert [standby.note(other, both) is not None for other in ones] == [False, False, True]


def test_the_least_busy_rests_when_one_too_many_serves_and_too_few_stand_by():
    busy, idle = serving("replica-0", load=Load(running=5)), serving("replica-1", load=Load(running=1))
    ones = (busy, idle, serving("replica-2", load=Load(running=4)))
    step = next_step(seen(*ones), RULES, NOW)
    assert step == Note(
        name="replica-1",
        happening=Happening.RESTED,
        why="replica-1 (pid 7) stands by: 3 serve where 2 are wanted",
    )
    assert standby.note(idle, seen(*ones, warm("replica-3"))) is None, "one stands by already: somebody has to leave"


def test_the_warm_have_a_place_without_weight_and_say_so():
    step = next_step(seen(serving("replica-0"), serving("replica-1"), warm()), RULES, NOW)
    assert isinstance(step, Publish)
    place = next(place for place in step.roster.places if place.replica == "replica-2")
    assert (place.warm, place.weight, place.leaving) == (True, 0.0, "")
    assert step.why == "roster 5: replica-0, replica-1 may serve, replica-2 stands by"
    assert step.roster.replicas == 2


def test_a_site_that_stops_calls_nobody():
    one = warm()
    assert standby.note(one, structs.replace(seen(serving("replica-1"), one), stopping="Ctrl-C")) is None


def test_a_standby_of_another_model_is_no_standby():
    one = warm("smaller-0", model="tiny")
    assert standby.note(one, seen(down("replica-0"), serving("replica-1"), one)) is None


def test_a_wedged_standby_is_killed_and_a_silent_one_suspected():
    wedged = warm(ailment=ill(Cure.KILL, on_suspicion=False, why="it made no step for 9 s"))
    ones = (serving("replica-0"), serving("replica-1"))
    standing = seen(*ones, wedged)
    published = next_step(standing, RULES, NOW)
    assert isinstance(published, Publish)
    step = next_step(structs.replace(standing, roster=published.roster), RULES, NOW)
    assert step == Kill(name="replica-2", why="kill replica-2 (pid 7): it made no step for 9 s")
    silent = warm(heard_at=NOW - 3)
    assert next_step(seen(*ones, silent), RULES, NOW).happening is Happening.SILENT
