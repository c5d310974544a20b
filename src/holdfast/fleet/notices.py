"""Notices: what others are told of what a supervisor sees, as events and as reasons in the site's view."""

from holdfast.domain import event as events
from holdfast.domain.event import Event
from holdfast.domain.replica import Happening, ReplicaState
from holdfast.domain.wish import Wishes
from holdfast.policy.standing import Note, Standing


def reason(one: Standing, wishes: Wishes) -> str:
    """What somebody who looks at this process wants to know: why it is not in service, or why it was started again."""
    drained = wishes.drained.get(one.name)
    if one.state is ReplicaState.DOWN and drained is not None:
        return f"drained, {drained}; it runs again after: holdfast undrain {one.name}"
    if one.state is ReplicaState.SERVING:
        return f"started again: {one.deaths[-1].why}" if one.deaths else ""
    if one.state is ReplicaState.STARTING and one.fact.stage:
        return one.fact.stage
    return one.why


def events_of(one: Standing, note: Note, silent_s: float) -> list[Event]:
    """What the others are told of a note; `one` is the standing before it."""
    name, pid, why = one.name, one.fact.pid, note.why
    match note.happening:
        case Happening.STARTED:
            return [events.ProcessAdopted(name=name, pid=pid, why=f"{why} since before this supervisor: adopted")]
        case Happening.READY:
            return [events.ProcessReady(name=name, pid=pid, why=why)]
        case Happening.RESTED if one.state is ReplicaState.STARTING:
            return [events.ProcessReady(name=name, pid=pid, why=why), events.ReplicaWarm(replica=name, why=why)]
        case Happening.RESTED:
            return [events.ReplicaWarm(replica=name, why=why)]
        case Happening.CALLED:
            return [events.ReplicaCalled(replica=name, why=why)]
        case Happening.SILENT:
            streams = one.fact.load.running if one.fact.load else 0
            return [events.ReplicaSuspected(replica=name, silent_s=silent_s, streams=streams, why=why)]
        case Happening.MOVED:
            return [events.ReplicaCleared(replica=name, why=why)]
        case Happening.DIED if one.state is ReplicaState.DRAINING and one.killed_at is None:
            return [events.ProcessStopped(name=name, pid=pid, why=why)]
        case Happening.DIED:
            return [events.ProcessDied(name=name, pid=pid, why=why)]
        case Happening.GAVE_UP:
            return [events.ProcessQuarantined(name=name, why=why)]
        case _:
            return []


def drained(one: Standing, now: float) -> events.ReplicaDrained:
    """A replica has left in order; `one` is its standing before that."""
    moved = f"{one.streams} stream{'' if one.streams == 1 else 's'}"
    why = f"{one.name} is drained of {moved} and gone, {now - one.since:.1f} s after it was told to leave"
    return events.ReplicaDrained(replica=one.name, streams=one.streams, why=why)
