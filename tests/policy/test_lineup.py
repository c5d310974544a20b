"""Which releases stand on one roster."""

from msgspec import structs
from standings import NOW, RELEASE, changed, down, serving, world

from holdfast.domain.procedure import Wait
from holdfast.domain.release import Release
from holdfast.domain.replica import ReplicaState
from holdfast.domain.wish import Wishes
from holdfast.policy import lineup
from holdfast.policy.standing import Rules
from holdfast.policy.supervision import Publish, next_step

MIXED, ONE_KIND = Rules(mixed=True), Rules()
PEARL = structs.replace(RELEASE, weights="w")
VLLM = Release(model="m", engine="vllm", digest="v1", weights="w")
FOREIGN = Release(model="m", engine="vllm", digest="x1", weights="other")


def pearl(name="replica-0", **more):
    return serving(name, release=PEARL, **more)


def vllm(name="replica-1", **more):
    return serving(name, release=VLLM, **more)


def published(seen, rules=MIXED):
    step = next_step(seen, rules, NOW)
    assert isinstance(step, Publish), step
    return step.roster


def places(roster):
    return [(place.replica, place.digest) for place in roster.places]


def test_kinds_on_the_same_weights_stand_together_where_the_site_mixes():
    roster = published(world(pearl(), vllm()))
    assert places(roster) == [("replica-0", "d1"), ("replica-1", "v1")]
    assert roster.kinds == (PEARL, VLLM)
    assert roster.release == PEARL
    assert isinstance(next_step(world(pearl(), vllm(), roster=roster), MIXED, NOW), Wait), "published once"


def test_without_the_setting_or_with_other_weights_only_one_kind_serves():
    assert places(published(world(pearl(), vllm()), ONE_KIND)) == [("replica-0", "")]
    roster = published(world(pearl(), serving("replica-1", release=FOREIGN)))
    assert (places(roster), roster.kinds) == ([("replica-0", "")], ())
    unknown = serving("replica-0"), serving("replica-1", release=structs.replace(VLLM, weights=""))
    assert places(published(world(*unknown))) == [("replica-0", "")]


def test_on_a_site_with_one_kind_nothing_is_told_of_kinds():
    assert isinstance(next_step(world(serving(), serving("replica-1")), MIXED, NOW), Wait)
    assert lineup.told(world(serving()), MIXED) == (RELEASE, ())


def test_a_kind_whose_replicas_are_down_is_remembered_until_all_that_should_run_do():
    before = published(world(pearl(), vllm()))
    seen = world(down("replica-0"), vllm(), roster=before)
    roster = published(seen)
    assert places(roster) == [("replica-1", "v1")]
    assert roster.release == PEARL, "the site goes on being called by the name that it had"
    assert roster.kinds == (PEARL, VLLM)
    replaced = world(vllm("replica-0"), vllm(), roster=roster)
    assert lineup.told(replaced, MIXED) == (VLLM, ())
    drained = world(pearl(state=ReplicaState.DRAINING, why="x"), vllm(), roster=before)
    drained = structs.replace(drained, wishes=Wishes(drained={"replica-0": "x"}))
    assert lineup.told(drained, MIXED) == (VLLM, ()), "nobody waits for one that an operator has taken out"


def test_one_that_leaves_keeps_its_digest():
    before = published(world(pearl(), vllm(), pearl("replica-2")))
    leaving = pearl(state=ReplicaState.DRAINING, why="upgrade 1 replaces this replica")
    roster = published(world(leaving, vllm(), pearl("replica-2"), roster=before))
    assert places(roster) == [("replica-0", "d1"), ("replica-1", "v1"), ("replica-2", "d1")]
    assert [place.weight for place in roster.places] == [0.0, 1.0, 1.0]


def test_in_an_upgrade_of_a_mixed_site_old_and_new_builds_serve_together_and_then_the_new_one_alone():
    new = structs.replace(PEARL, digest="d2")
    before = published(world(pearl(), vllm(), pearl("replica-2")))
    half = published(world(changed(pearl(), release=new), vllm(), pearl("replica-2"), roster=before))
    assert [one.digest for one in half.kinds] == ["d1", "d2", "v1"]
    done = published(world(changed(pearl(), release=new), vllm(), serving("replica-2", release=new), roster=half))
    assert [one.digest for one in done.kinds] == ["d2", "v1"]
    assert done.release == new


def test_the_first_kind_to_serve_gives_the_site_its_name_only_once():
    before = published(world(pearl(), vllm()))
    assert lineup.told(world(vllm("replica-0"), pearl("replica-1"), roster=before), MIXED)[0] == PEARL
