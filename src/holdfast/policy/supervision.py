"""Supervision: what should be done next so that the site is as it is wanted?

One pure function, `next_step`, over everything that was seen. It is level-triggered: each look it finds the first thing that
is not as it should be and names the one step that mends it. The order of the rules is their meaning:

    1  an observer that was late doubts itself before anybody else
    2  what has happened to processes is taken down (policy/judging.py), who has to leave (policy/leaving.py), and who of the
       loaded serves (policy/standby.py): one that is lost is replaced before anybody hears of it
    3  the roster is published, before any process is told or started: traffic first
    4  what should not run is told to leave; what does not leave, or is frozen, is killed
    5  an upgrade begins with the supervisor itself, and is over when nothing older runs
    6  what should run is started, at the pace and to the end that policy/escalation.py allows
    7  when all that is done, the load may ask for another number (policy/scaling.py)
"""

from msgspec import structs

from holdfast.domain.procedure import Done, Step, Wait
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Place
from holdfast.domain.site import Role
from holdfast.policy import escalation, judging, leaving, lineup
from holdfast.policy.restart_intensity import Later
from holdfast.policy.standing import (
    LIVE,
    UP,
    Condemn,
    Doubt,
    Fact,
    Finish,
    Forget,
    Halt,
    Kill,
    Note,
    Publish,
    Refresh,
    Renew,
    Reset,
    Rules,
    Scale,
    Seen,
    Standing,
    Start,
    Tell,
    noted,
)

__all__ = [
    "Condemn",
    "Doubt",
    "Fact",
    "Finish",
    "Forget",
    "Halt",
    "Kill",
    "Note",
    "Publish",
    "Refresh",
    "Renew",
    "Reset",
    "Rules",
    "Scale",
    "Seen",
    "Standing",
    "Start",
    "Tell",
    "next_step",
    "noted",
]

LOOK_S = 1.0  # look at least this often, whatever happens


def next_step(seen: Seen, rules: Rules, now: float) -> Step | Wait | Done:
    """The first thing that is not as it should be, or how long all is well."""
    if seen.late_s > rules.late_s:
        return Doubt(why=f"this look came {seen.late_s:.1f} s late: silences are counted from now", all_silent=False)
    if judging.all_silent(seen, rules, now) and seen.doubting_since is None:
        return Doubt(
            why="all replicas fell silent at once: it is likelier that this machine is starved", all_silent=True
        )
    for one in seen.standings:
        note = judging.note(one, seen, rules, now)
        if note is not None:
            return note
    step = _publish(seen, rules) or _leave(seen, rules, now) or judging.kill(seen, rules, now)
    if step is not None:
        return step
    if seen.stopping:
        return _stopped(seen, now)
    mending = _upgrade(seen) or _start(seen, rules, now)
    return (_scale(seen) or mending) if isinstance(mending, Wait) else mending


def _publish(seen: Seen, rules: Rules) -> Publish | None:
    replicas = seen.of(Role.REPLICA)
    release, kinds = lineup.told(seen, rules)
    places: list[Place] = []
    for model in dict.fromkeys(one.model for one in replicas):
        group = seen.replicas(model)
        told = release if not model else lineup.first(group, None)
        mixes = rules.mixed and not model
        places += [_place(one) for one in group if _stands(one) and lineup.speaks(one, told, mixes)]
    if not seen.stopping:
        places += [_place(one, one.why) for one in replicas if _moves_out(one) and one.fact.address]
    places = sorted((*places, *_adopted(seen)), key=lambda place: place.replica)
    if kinds:
        places = lineup.marked(places, seen)
    count = seen.roster.replicas
    if any(not place.model for place in places) and not seen.stopping:
        count = min(len(leaving.wanted_replicas(seen)), seen.serve_count)
    roster = structs.replace(seen.roster, replicas=count, release=release, kinds=kinds, places=tuple(places))
    if roster == seen.roster:
        return None
    return Publish(
        roster=structs.replace(roster, epoch=seen.roster.epoch + 1), why=_words(seen.roster.epoch + 1, places)
    )


def _words(epoch: int, places: list[Place]) -> str:
    who = ", ".join(place.replica for place in places if place.weight > 0) or "nobody"
    warm = ", ".join(place.replica for place in places if place.warm and not place.leaving)
    out = ", ".join(place.replica for place in places if place.leaving)
    by, going = f", {warm} stands by" if warm else "", f", {out} is leaving" if out else ""
    return f"roster {epoch}: {who} may serve{by}{going}"


def _stands(one: Standing) -> bool:
    """Whether it may be dialled: one that ends its engine says itself that it is not ready, before it is gone."""
    return one.state in UP and bool(one.fact.address)


def _place(one: Standing, why: str = "") -> Place:
    fact, warm = one.fact, one.state is ReplicaState.WARM
    weight = 0.0 if warm or why else 1.0
    return Place(
        replica=one.name,
        address=fact.address,
        boot=fact.boot,
        pid=fact.pid,
        weight=weight,
        leaving=why,
        box=fact.box,
        model=one.model,
        warm=warm,
    )


def _moves_out(one: Standing) -> bool:
    return one.state is ReplicaState.DRAINING and one.fact.alive and bool(one.fact.boot)


def _adopted(seen: Seen) -> list[Place]:
    """Places of replicas that live on from before our own start and have not answered us yet: nobody has accused them."""
    starting = {o.name: o.fact.pid for o in seen.standings if o.state is ReplicaState.STARTING and o.fact.alive}
    return [place for place in seen.roster.places if place.pid and starting.get(place.replica) == place.pid]


def _leave(seen: Seen, rules: Rules, now: float) -> Tell | Forget | Condemn | None:
    if not seen.stopping:
        found = leaving.condemned(seen)
        if found is not None:
            return Condemn(name=found[0].name, why=found[1].why)
    for one in seen.standings:
        grace_s = rules.grace_s(one.role)
        if one.state is ReplicaState.DRAINING and one.told_at is None and not _told_before(one, rules, now):
            return Tell(name=one.name, grace_s=grace_s, why=f"tell {one.named()} to leave")
        if not one.wanted and one.state not in LIVE and not one.fact.alive:
            return Forget(name=one.name, why=f"{one.name} is neither wanted nor there")
    return None


def _told_before(one: Standing, rules: Rules, now: float) -> bool:
    """Whether an earlier supervisor has told it, or may have: told twice it ends at once, with streams that could still move.

    A replica says itself that it leaves. One that is up but was not heard yet is given a moment to say so.
    """
    if one.role is not Role.REPLICA or rules.replica_grace_s <= 0:
        return False
    if one.fact.load is not None:
        return one.fact.load.draining
    return bool(one.fact.boot) and now - one.since < rules.silent_s


def _upgrade(seen: Seen) -> Renew | Finish | Refresh | None:
    wishes = seen.wishes
    ailment = leaving.bloated_worker(seen)
    if ailment is not None:
        return Refresh(epoch=wishes.epoch + 1, why=f"all workers are replaced: {ailment.why}")
    if wishes.epoch > seen.epoch:
        return Renew(epoch=wishes.epoch, why=f"upgrade {wishes.epoch} begins with the supervisor")
    if wishes.finished_epoch < seen.epoch and not leaving.outdated(seen):
        return Finish(epoch=seen.epoch, why=f"upgrade {seen.epoch} is complete: nothing older runs")
    return None


def _stopped(seen: Seen, now: float) -> Wait | Done:
    left = [one.named() for one in seen.standings if one.fact.alive or one.state in LIVE]
    if left:
        return Wait(now + LOOK_S, f"waiting for {', '.join(left)} to leave")
    return Done(f"everything has stopped: {seen.stopping}", ok=not seen.failed)


def _start(seen: Seen, rules: Rules, now: float) -> Step | Wait:
    halt = escalation.hopeless(seen)
    if halt is not None:
        return halt
    until, whys = now + LOOK_S, []
    for one in seen.standings:
        if one.state is not ReplicaState.DOWN or not one.wanted:
            continue
        if one.role is Role.REPLICA and one.name in seen.wishes.drained:
            whys.append(f"{one.name} is drained")
            continue
        verdict = escalation.start(one, seen, rules, now)
        if not isinstance(verdict, Later):
            return verdict
        until = min(until, verdict.at)
        whys.append(f"{one.name}, {verdict.why}")
    return Wait(until, "; ".join(whys) or "all is well")


def _scale(seen: Seen) -> Scale | None:
    """Another number, if the load asks for one: not while an upgrade is under way, and fewer only when nothing else is."""
    wanted = seen.scaling
    if wanted is None or wanted.count == seen.serve or seen.wishes.count is not None:
        return None
    if max(seen.epoch, seen.wishes.epoch) > seen.wishes.finished_epoch:
        return None
    if wanted.count < seen.serve_count and not _calm(seen):
        return None
    return Scale(count=wanted.count, why=wanted.why)


def _calm(seen: Seen) -> bool:
    """Nobody comes, goes or is doubted: what is seen of the load is seen of all that are meant to carry it."""
    out = (ReplicaState.QUARANTINED, ReplicaState.DOWN)
    return all(one.state in UP or (one.state in out and _is_out(one, seen)) for one in seen.replicas())


def _is_out(one: Standing, seen: Seen) -> bool:
    drained = one.name in seen.wishes.drained
    return drained or one.name in seen.wishes.condemned or one.state is ReplicaState.QUARANTINED
