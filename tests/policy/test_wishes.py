"""Wishes: what a command makes of them, and why it is refused."""

from dataclasses import dataclass

import pytest
from msgspec import structs

from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings_overload import Scaling
from holdfast.domain.site import ProcessView, Role
from holdfast.domain.wish import Wishes
from holdfast.policy import wishes
from holdfast.policy.wishes import Asked, Refused


def replica(number: int, state: ReplicaState = ReplicaState.SERVING, device: str = "cpu") -> ProcessView:
    return ProcessView(name=f"replica-{number}", role=Role.REPLICA, state=state, why="", pid=10 + number, device=device)


GATEWAY = ProcessView(name="gateway-0", role=Role.GATEWAY, state=ReplicaState.SERVING, why="", pid=9)
PAIR = (replica(0), replica(1), GATEWAY)
GPUS = tuple(replica(number, device=f"cuda:{number // 2}") for number in range(4))


@dataclass(frozen=True)
class Case:
    target: str
    names: tuple[str, ...]


@pytest.mark.parametrize(
    "case",
    [
        Case("replica-2", ("replica-2",)),
        Case("cuda:1", ("replica-2", "replica-3")),
        Case("gpu:0", ("replica-0", "replica-1")),
        Case("host", ("replica-0", "replica-1", "replica-2", "replica-3")),
    ],
    ids=lambda case: case.target,
)
def test_a_target_means_a_replica_a_device_or_all(case):
    assert wishes.targets(case.target, GPUS) == case.names


def test_a_replica_on_several_gpus_is_found_by_each_of_them():
    site = (
        replica(0, device="cuda:0,cuda:1"),
        replica(1, device="cuda:2, cuda:10"),
        replica(2, ReplicaState.DOWN, device="cuda:0,cuda:1,cuda:2,cuda:10"),  # it has not said which it got
        replica(3, device=""),
    )
    found = [wishes.targets(f"cuda:{number}", site) for number in (0, 1, 2, 10)]
    assert found == [("replica-0", "replica-2")] * 2 + [("replica-1", "replica-2")] * 2
    assert wishes.targets("gpu:3", site).why.endswith("replica-2, replica-3, cuda:0, cuda:1, cuda:10, cuda:2, host")


def test_what_is_not_there_is_told_with_what_is():
    assert wishes.targets("replica-9", GPUS) == Refused(
        why="there is no replica 'replica-9': name one of replica-0, replica-1, replica-2, replica-3, cuda:0, cuda:1, host"
    )
    assert isinstance(wishes.targets("", (ProcessView(**{**_fields(replica(0)), "device": ""}),)), Refused)
    assert wishes.targets("gateway-0", PAIR) == Refused(
        why="gateway-0 is no replica: only replicas are drained; holdfast upgrade replaces the others"
    )


def _fields(view: ProcessView) -> dict[str, object]:
    return {name: getattr(view, name) for name in view.__struct_fields__}


def test_a_drain_is_written_down_with_its_reason():
    asked = wishes.drain(Wishes(), PAIR, "replica-0", "a new card")
    assert asked == Asked(
        wishes=Wishes(drained={"replica-0": "a new card"}),
        names=("replica-0",),
        why="replica-0 will move its streams and stop",
    )


def test_the_last_replica_that_serves_is_drained_by_force_only():
    alone = Wishes(drained={"replica-1": "before"})
    refused = wishes.drain(alone, PAIR, "replica-0", "why not")
    assert refused == Refused(
        why="replica-0: is the last replica that serves. Bring another into service first (holdfast undrain NAME, or more "
        "with [replica] count), or end the service with --force"
    )
    assert isinstance(wishes.drain(alone, PAIR, "replica-0", "why not", force=True), Asked)
    refused = wishes.drain(Wishes(), PAIR, "host", "why not")
    assert isinstance(refused, Refused)
    assert refused.why.startswith("replica-0, replica-1: are all replicas that serve.")


def test_draining_what_is_down_or_drained_already_needs_no_force():
    down = (replica(0, ReplicaState.QUARANTINED), replica(1))
    assert isinstance(wishes.drain(Wishes(), down, "replica-0", "why not"), Asked)
    drained = Wishes(drained={"replica-0": "a", "replica-1": "a"})
    assert isinstance(wishes.drain(drained, PAIR, "replica-0", "again"), Asked)


def test_undrain_forgets_drain_and_condemnation_and_grants_a_pardon():
    before = Wishes(
        drained={"replica-0": "a", "replica-1": "b"}, condemned={"replica-0": "wrong"}, pardons={"replica-0": 1}
    )
    asked = wishes.undrain(before, PAIR, "replica-0")
    assert asked == Asked(
        wishes=Wishes(drained={"replica-1": "b"}, pardons={"replica-0": 2}),
        names=("replica-0",),
        why="replica-0 may run again",
    )


def test_what_is_drained_but_no_longer_part_of_the_site_can_be_forgotten():
    asked = wishes.undrain(Wishes(drained={"replica-7": "a"}), PAIR, "replica-7")
    assert isinstance(asked, Asked)
    assert asked.wishes.drained == {}
    assert isinstance(wishes.undrain(Wishes(), PAIR, "replica-7"), Refused)


def test_an_upgrade_counts_on_and_takes_replicas_along_if_asked_to():
    asked = wishes.upgrade(Wishes(epoch=3, refused="before"), PAIR)
    assert isinstance(asked, Asked)
    assert (asked.wishes, asked.names) == (Wishes(epoch=4), ("gateway-0",))
    assert asked.why == "upgrade 4: supervisor, workers, control plane are replaced, one after the other"
    asked = wishes.upgrade(Wishes(epoch=3), PAIR, replicas=True)
    assert isinstance(asked, Asked)
    assert asked.wishes == Wishes(epoch=4, replicas_epoch=4)


def test_the_last_that_has_its_engine_is_not_replaced_while_the_others_wait_for_theirs():
    gone = structs.replace(replica(1, ReplicaState.STARTING), away=True, why="waits for http://e:1: nobody answers")
    for force in (False, True):
        assert wishes.upgrade(Wishes(), (replica(0), gone, GATEWAY), replicas=True, force=force) == Refused(
            why="replica-0 is the only replica with an engine, since replica-1 waits for http://e:1: nobody answers. "
            "Replacing it interrupts the service: wait until that engine is back, or holdfast drain replica-1 and say --force"
        )
    assert isinstance(wishes.upgrade(Wishes(), (replica(0), gone, GATEWAY)), Asked)
    assert isinstance(wishes.upgrade(Wishes(), (replica(0), replica(2), gone, GATEWAY), replicas=True), Asked)


def test_an_only_replica_is_replaced_by_force_only():
    refused = wishes.upgrade(Wishes(drained={"replica-1": "a"}), PAIR, replicas=True)
    assert refused == Refused(
        why="replica-0 is the only replica: replacing it interrupts the service while another one loads. "
        "Run two with [replica] count, or say --force"
    )
    assert isinstance(wishes.upgrade(Wishes(), (replica(0),), replicas=True, force=True), Asked)
    assert isinstance(wishes.upgrade(Wishes(), (replica(0),)), Asked)


def test_the_supervisor_finishes_refuses_and_condemns():
    assert wishes.finish(Wishes(epoch=4), 4).finished_epoch == 4
    assert wishes.finish(Wishes(finished_epoch=5), 4).finished_epoch == 5
    assert wishes.finish(Wishes(), 4) == Wishes(epoch=4, finished_epoch=4), "a lost file would count upgrades anew"
    refused = wishes.refuse_upgrade(Wishes(epoch=4, replicas_epoch=4), 3, "the settings are wrong")
    assert refused == Wishes(epoch=3, replicas_epoch=3, refused="the settings are wrong")
    assert wishes.condemn(Wishes(), "replica-0", "wrong tokens").condemned == {"replica-0": "wrong tokens"}


def test_a_site_that_starts_from_nothing_counts_upgrades_anew_and_keeps_its_drains():
    before = Wishes(drained={"replica-0": "a"}, epoch=4, replicas_epoch=4, finished_epoch=4, refused="x")
    assert wishes.afresh(before) == Wishes(drained={"replica-0": "a"})


BY_LOAD = Scaling(on=True, min=2, max=5)


def test_an_operator_says_how_many_serve_and_takes_it_back():
    asked = wishes.scale(Wishes(scaled=3), 4, Scaling())
    assert asked == Asked(wishes=Wishes(count=4, scaled=3), names=(), why="4 replicas should serve")
    asked = wishes.scale(Wishes(), 4, BY_LOAD)
    assert isinstance(asked, Asked)
    assert asked.why == "4 replicas should serve, until: holdfast scale auto"
    back = wishes.scale(Wishes(count=4), None, BY_LOAD)
    assert back == Asked(wishes=Wishes(), names=(), why="the number of replicas follows the load")
    assert wishes.scale(Wishes(count=4), None, Scaling()).why == "the number of replicas is that of [replica] count"


def test_a_number_beyond_the_bounds_needs_force_and_one_beyond_reason_is_refused():
    refused = wishes.scale(Wishes(), 9, BY_LOAD)
    assert refused == Refused(why="9 replicas: [scaling] allows 2 to 5. Change the settings, or say --force")
    assert isinstance(wishes.scale(Wishes(), 9, BY_LOAD, force=True), Asked)
    assert isinstance(wishes.scale(Wishes(), 9, Scaling()), Asked)
    assert wishes.scale(Wishes(), 65, Scaling(), force=True) == Refused(why="65 replicas: a site has 0 to 64")
    nothing = wishes.scale(Wishes(), 0, Scaling())
    assert isinstance(nothing, Refused)
    assert "ends the service" in nothing.why
    assert isinstance(wishes.scale(Wishes(), 0, Scaling(), force=True), Asked)


def test_what_the_load_asked_for_is_kept_while_anything_runs():
    assert wishes.scaled(Wishes(count=3), 4) == Wishes(count=3, scaled=4)
    assert wishes.afresh(Wishes(count=3, scaled=4)) == Wishes(count=3)


def test_with_a_standby_the_last_one_that_serves_may_be_drained():
    site = (replica(0), replica(1, ReplicaState.WARM))
    assert isinstance(wishes.drain(Wishes(), site, "replica-0", "a new card"), Asked)


def test_replicas_of_another_model_are_no_help():
    smaller = ProcessView(name="smaller-0", role=Role.REPLICA, state=ReplicaState.SERVING, why="", model="tiny")
    assert isinstance(wishes.drain(Wishes(), (replica(0), smaller), "replica-0", "x"), Refused)
    assert isinstance(wishes.drain(Wishes(), (replica(0), smaller), "smaller-0", "x"), Asked)
    assert isinstance(wishes.upgrade(Wishes(), (replica(0), smaller), replicas=True), Refused)
