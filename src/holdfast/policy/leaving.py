"""Leaving: who has to go although it runs and answers, and why?

In this order: because the site stops; because it is not wanted any more; because an operator drains it; because it was found
ill; because it belongs to an earlier upgrade. Three rules keep the service whole meanwhile:

    make before break   workers that are not wanted any more stay until every wanted one serves, and leave one at a time
    one at a time       a replica is renewed only while all others that should serve do; with one replica alone there
                        is nobody to wait for, nor is there for one whose engine runs elsewhere and is not there
    the half rule       what rests on suspicion obeys policy/ejection.py

A replica that leaves keeps its place in the roster with weight 0 until it is gone: gateways move its streams, one by one,
while it still answers, and its process ends when the last has moved. So a drain needs no step after the first, and a
supervisor that is killed midway leaves nothing undone that the next one would not see.

A worker that has to be replaced before its time (memory) is replaced by an upgrade of all: its name is taken while it lives.
"""

from msgspec import Struct

from holdfast.domain.ailment import Ailment, Cure
from holdfast.domain.replica import ReplicaState
from holdfast.domain.site import Role
from holdfast.policy.ejection import Allowed, Held, may_eject
from holdfast.policy.standing import LIVE, STOP_ORDER, UP, Rules, Seen, Standing


class Farewell(Struct, frozen=True, kw_only=True):
    """It has to go. `blamed`: for a fault of its own, which counts as a death when it happens often."""

    why: str
    blamed: bool = False


def farewell(one: Standing, seen: Seen, rules: Rules) -> Farewell | None:
    """Why this one has to leave now; None while it may stay."""
    if seen.stopping:
        return Farewell(why=seen.stopping) if one.role is turn(seen) else None
    if not one.wanted:
        return _unwanted(one, seen)
    if one.role is Role.CONTROL:
        return _old(one, seen.epoch, "control plane") if not unwanted_workers(seen) else None
    if one.role is Role.GATEWAY:
        return None
    why = seen.wishes.drained.get(one.name)
    if why is not None:
        return Farewell(why=f"it is drained, {why}")
    condemned = seen.wishes.condemned.get(one.name)
    if condemned is not None:
        return Farewell(why=condemned)
    if not others_serve(one, seen) and not away(one):
        return None
    ailment = treatable(one, seen)
    if ailment is not None and ailment.cure is Cure.RENEW:
        return Farewell(why=ailment.why, blamed=ailment.on_suspicion)
    if seen.wishes.epoch > seen.epoch:
        return None  # an upgrade begins with the supervisor
    if unwanted_workers(seen) or any(_old(other, seen.epoch, "") for other in seen.of(Role.CONTROL)):
        return None
    return _old(one, seen.wishes.replicas_epoch, "replica")


def condemned(seen: Seen) -> tuple[Standing, Ailment] | None:
    """A replica whose ailment calls for quarantine, and is not in it yet."""
    for one in seen.of(Role.REPLICA):
        ailment = treatable(one, seen)
        if ailment is not None and ailment.cure is Cure.CONDEMN and one.name not in seen.wishes.condemned:
            return one, ailment
    return None


def bloated_worker(seen: Seen) -> Ailment | None:
    """What ails a gateway worker, unless an upgrade replaces it already."""
    if max(seen.epoch, seen.wishes.epoch) > seen.wishes.finished_epoch:
        return None
    workers = (one for one in seen.of(Role.GATEWAY) if one.wanted and one.state is ReplicaState.SERVING)
    return next((one.fact.ailment for one in workers if one.fact.ailment is not None), None)


def treatable(one: Standing, seen: Seen) -> Ailment | None:
    """Its ailment, if something may be done about it: the half rule holds back what rests on suspicion."""
    ailment = one.fact.ailment
    if ailment is None or one.state not in LIVE or one.state is ReplicaState.DRAINING:
        return None
    return ailment if not ailment.on_suspicion or isinstance(_verdict(one, seen), Allowed) else None


def frozen(seen: Seen) -> tuple[int, str]:
    """How many replicas are suspected while the half rule holds one of them back, and the rule's sentence; (0, "") if none is."""
    suspected = [one for one in seen.of(Role.REPLICA) if one.fact.ailment is not None and one.fact.ailment.on_suspicion]
    for one in suspected:
        verdict = _verdict(one, seen)
        if one.state in UP and isinstance(verdict, Held):
            return len(suspected), f"{one.name} is left in service although {_said(one)}: {verdict.why}"
    return 0, ""


def wanted_replicas(seen: Seen, model: str = "") -> list[Standing]:
    """The replicas of a model that should run: wanted, and neither drained nor condemned."""
    wishes = seen.wishes
    return [
        one
        for one in seen.replicas(model)
        if one.wanted and one.name not in wishes.drained and one.name not in wishes.condemned
    ]


def others_serve(one: Standing, seen: Seen) -> bool:
    """Whether all others of its model that should serve do, or stand by for it.

    Those in quarantine are not waited for, nor those that can't serve for reasons outside of us, but two must serve where two
    should.
    """
    wanted = wanted_replicas(seen, one.model)
    others = [other for other in wanted if other.name != one.name and not _excused(other)]
    if any(other.state not in UP for other in others):
        return False
    return bool(others) or len(wanted) <= 1


def away(one: Standing) -> bool:
    """Whether it waits for an engine that runs elsewhere, and has for a while."""
    return one.state is ReplicaState.STARTING and one.fact.away


def _excused(one: Standing) -> bool:
    return one.state is ReplicaState.QUARANTINED or away(one)


def turn(seen: Seen) -> Role | None:
    """While the site stops: the role that leaves now, the first in STOP_ORDER of which anything still lives."""
    living = {one.role for one in seen.standings if one.fact.alive or one.state in LIVE}
    return next((role for role in STOP_ORDER if role in living), None)


def unwanted_workers(seen: Seen) -> list[Standing]:
    return [one for one in seen.of(Role.GATEWAY) if not one.wanted and (one.fact.alive or one.state in LIVE)]


def outdated(seen: Seen) -> str:
    """What is still older than our own upgrade, or not yet in service; empty when the upgrade is complete."""
    names = [one.name for one in unwanted_workers(seen)]
    for one in (*seen.of(Role.GATEWAY), *seen.of(Role.CONTROL)):
        if one.wanted and (one.state is not ReplicaState.SERVING or one.fact.epoch < seen.epoch):
            names.append(one.name)
    if seen.wishes.replicas_epoch == seen.epoch:
        models = dict.fromkeys(one.model for one in seen.of(Role.REPLICA))
        for one in (one for model in models for one in wanted_replicas(seen, model)):
            old = one.fact.alive and one.fact.epoch < seen.epoch
            if one.state is not ReplicaState.QUARANTINED and (old or not (one.state in UP or away(one))):
                names.append(one.name)
    return ", ".join(names)


def _unwanted(one: Standing, seen: Seen) -> Farewell | None:
    if one.role is not Role.GATEWAY:
        return Farewell(why="it is not wanted any more")
    workers = [other for other in seen.of(Role.GATEWAY) if other.name != one.name]
    unready = [other for other in workers if other.wanted and other.state is not ReplicaState.SERVING]
    if unready or any(other.state is ReplicaState.DRAINING for other in workers):
        return None
    return Farewell(why="it is not wanted any more, and all workers that are wanted serve")


def _old(one: Standing, epoch: int, what: str) -> Farewell | None:
    if not one.fact.alive or one.fact.epoch >= epoch:
        return None
    return Farewell(why=f"upgrade {epoch} replaces this {what}")


def _verdict(one: Standing, seen: Seen) -> Allowed | Held:
    replicas = [other for other in seen.replicas(one.model) if other.wanted]
    out = sum(1 for other in replicas if other.name != one.name and _suspected_out(other, seen))
    serving = sum(1 for other in replicas if other.name != one.name and other.state in UP)
    return may_eject(out, len(replicas), serving)


def _suspected_out(one: Standing, seen: Seen) -> bool:
    """Whether this one is out on suspicion: silent, condemned, or on its way out for what was suspected of it."""
    if one.state is ReplicaState.SUSPECT or one.name in seen.wishes.condemned:
        return True
    return one.blamed and one.state not in UP


def _said(one: Standing) -> str:
    return one.fact.ailment.why if one.fact.ailment is not None else ""
