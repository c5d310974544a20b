"""Judging: what has happened to a process, by what is seen of it? domain/replica.py says what a happening makes of its state.

Silence: a replica that has not answered a ping for half of `silent_s` leaves the roster; at `silent_s` it is killed. But where
all of several replicas fall silent at once, the likelier cause is our own machine: nobody is judged for DOUBT_FACTOR times
as long. A gateway worker gives a pulse instead of answering pings; it is killed after `worker_silent_s` without one, and since
the listening socket is not its own, no connection is refused meanwhile. Workers are killed one at a time: if all of them
are still, a new one must not be born into the same trouble before it can be seen.
"""

from holdfast.domain.ailment import Cure
from holdfast.domain.replica import Happening, ReplicaState
from holdfast.domain.site import Role
from holdfast.policy import leaving, standby
from holdfast.policy.standing import LIVE, Kill, Note, Rules, Seen, Standing

DOUBT_FACTOR = 6.0
BIRTH_S = 10.0  # a worker that takes longer than this to come up is no reason to spare the other frozen ones


def silence_s(one: Standing, seen: Seen, now: float) -> float:
    """How long a process has given no sign of life, in seconds; 0 for one that can't give any yet."""
    if one.fact.stage and one.state is ReplicaState.DRAINING:
        return 0.0  # it has no answers left and ends its engine, by its own word: bounded by its grace
    mute = one.role is Role.REPLICA and one.served_at is None
    if mute and one.announced_at is not None:  # it can be asked, and says no Welcome
        return now - max(one.fact.heard_at or 0.0, one.announced_at, seen.trusted_since)
    if one.served_at is None or one.role is Role.CONTROL:
        return 0.0
    if one.role is Role.GATEWAY and one.fact.heard_at is None:
        return 0.0  # it has no pulse to give on this machine
    told_at = one.staged_at if one.fact.stage else 0.0  # that it ends its engine: it can't be asked any more
    return now - max(one.fact.heard_at or 0.0, one.served_at, told_at, seen.trusted_since)


def all_silent(seen: Seen, rules: Rules, now: float) -> bool:
    """Whether all of several replicas fell silent at about the same time."""
    living = (ReplicaState.SERVING, ReplicaState.WARM, ReplicaState.SUSPECT)
    there = [one for one in seen.standings if one.state in living and one.fact.alive]
    silences = [silence_s(one, seen, now) for one in there if one.role is Role.REPLICA]
    limit_s = rules.silent_s / 2
    return len(silences) > 1 and min(silences) > limit_s and max(silences) - min(silences) < limit_s


def may_judge(seen: Seen, rules: Rules, now: float) -> bool:
    """Whether silence may be held against replicas now."""
    if not all_silent(seen, rules, now):
        return True
    return now - (seen.doubting_since or now) >= (DOUBT_FACTOR - 1) * rules.silent_s


def note(one: Standing, seen: Seen, rules: Rules, now: float) -> Note | None:
    """What has happened to this one and was not taken down yet."""
    fact, state = one.fact, one.state
    if state in LIVE and not fact.alive:
        return Note(name=one.name, happening=Happening.DIED, why=f"{one.named()} {_end(one)}")
    if state not in LIVE and fact.alive:
        return Note(name=one.name, happening=Happening.STARTED, why=f"{one.named()} runs")
    if state is ReplicaState.STARTING and fact.ready:
        found = standby.ready(one, seen)
        return Note(name=one.name, happening=found.happening, why=found.why)
    if one.role is Role.REPLICA:
        happened = _of_replica(one, seen, rules, now)
        if happened is not None:
            return happened
    if state in LIVE and state is not ReplicaState.DRAINING:
        farewell = leaving.farewell(one, seen, rules)
        if farewell is not None:
            why = f"{one.named()} has to leave: {farewell.why}"
            return Note(name=one.name, happening=Happening.TOLD_TO_LEAVE, why=why, blamed=farewell.blamed)
    return standby.note(one, seen)


def kill(seen: Seen, rules: Rules, now: float) -> Kill | None:
    """Who has to be ended at once: the silent, those that never become ready, the wedged, those that do not leave.

    A start may take long as long as it comes further: `start_s` is counted from the last stage that it told of.
    """
    judging = may_judge(seen, rules, now)
    for one in seen.standings:
        if one.killed_at is not None and now - one.killed_at < rules.silent_s:
            continue
        suspected = False
        why = _deadly(one, seen, rules, now) if judging or one.role is not Role.REPLICA else ""
        starting_s = now - max(one.started_at, one.staged_at, seen.trusted_since)
        if not why and one.state is ReplicaState.STARTING and starting_s > rules.restart.start_s:
            why = f"it is not ready after {starting_s:.0f} s"
            if one.fact.stage:
                why = f"its start has come no further for {starting_s:.0f} s than this: {one.fact.stage}"
        if not why and one.state in (ReplicaState.SERVING, ReplicaState.WARM, ReplicaState.SUSPECT):
            ailment = leaving.treatable(one, seen)
            if ailment is not None and ailment.cure is Cure.KILL:
                why, suspected = ailment.why, ailment.on_suspicion
        if why:
            return Kill(name=one.name, why=f"kill {one.named()}: {why}", suspected=suspected)
    return None


def _of_replica(one: Standing, seen: Seen, rules: Rules, now: float) -> Note | None:
    silent_s = silence_s(one, seen, now)
    if one.state is ReplicaState.SUSPECT and silent_s <= rules.silent_s / 2 and one.fact.ready:
        return Note(name=one.name, happening=Happening.MOVED, why=f"{one.named()} answers again")
    up = one.state in (ReplicaState.SERVING, ReplicaState.WARM, ReplicaState.STARTING)
    if up and silent_s > rules.silent_s / 2 and may_judge(seen, rules, now):
        why = f"{one.named()} has answered no ping for {silent_s:.1f} s"
        return Note(name=one.name, happening=Happening.SILENT, why=why)
    if one.state in (ReplicaState.DOWN, ReplicaState.QUARANTINED):
        if seen.wishes.pardons.get(one.name, 0) > one.pardons:
            return Note(name=one.name, happening=Happening.PARDONED, why=f"{one.name} was let off: it may run again")
        condemned = seen.wishes.condemned.get(one.name)
        if one.state is ReplicaState.DOWN and condemned is not None:
            why = f"{one.name} is quarantined: {condemned}; when that is mended: holdfast undrain {one.name}"
            return Note(name=one.name, happening=Happening.GAVE_UP, why=why)
    return None


def _deadly(one: Standing, seen: Seen, rules: Rules, now: float) -> str:
    """Why silence, or not leaving, costs this one its life; empty if it does not."""
    silent_s = silence_s(one, seen, now)
    draining = one.state is ReplicaState.DRAINING
    if one.role is Role.REPLICA and (one.state is ReplicaState.SUSPECT or (draining and not seen.stopping)):
        if silent_s > rules.silent_s:
            return f"it answered no ping for {silent_s:.1f} s, the limit is {rules.silent_s:g} s"
    elif one.role is Role.GATEWAY and silent_s > rules.worker_silent_s and not _another_is_born(one, seen, now):
        return f"it gave no sign of life for {silent_s:.1f} s, the limit is {rules.worker_silent_s:g} s"
    overdue_s = now - max(one.since, seen.trusted_since) - rules.grace_s(one.role) - rules.silent_s
    if draining and overdue_s > 0:  # its killer died with an earlier supervisor
        return f"it should have left {overdue_s + rules.silent_s:.0f} s ago"
    return ""


def _another_is_born(one: Standing, seen: Seen, now: float) -> bool:
    others = [other for other in seen.of(Role.GATEWAY) if other.name != one.name]
    return any(
        (other.killed_at is not None and now - other.killed_at < BIRTH_S)
        or (other.state is ReplicaState.STARTING and now - other.started_at < BIRTH_S)
        for other in others
        if other.wanted
    )


def _end(one: Standing) -> str:
    """How a process ended, as the rest of a sentence."""
    code = one.fact.exit_code
    words = f": {one.fact.last_words}" if one.fact.last_words else ""
    if code is None:
        return "is gone"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with code {code}{words if code else ''}"
