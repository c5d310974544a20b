"""Standby: who of the loaded replicas serves, and who stands by?

So many serve as are wanted, and the others are warm: loaded, connected, asked canaries, and without work. No name is warm by
birth. Whoever becomes ready when enough others serve stands by; when one of those is lost, silent, drained or on its way out, the
one that has stood by longest is called in the same look, before the roster is published: one roster then both takes out and
brings in. The lost one is started again at leisure, and stands by in its turn. When one comes back that was only silent, there is
one too many, and the least busy rests: what runs on it ends there.

A warm replica that was not heard lately, or that has an ailment, is not called.
"""

from msgspec import Struct

from holdfast.domain.replica import Happening, ReplicaState
from holdfast.domain.roster import Place
from holdfast.domain.site import Role
from holdfast.policy.standing import Note, Seen, Standing


class Ready(Struct, frozen=True):
    """What becomes of a replica that is ready: READY, it serves; RESTED, it stands by."""

    happening: Happening
    why: str


def ready(one: Standing, seen: Seen) -> Ready:
    """Where a replica goes that has just become ready. One that was adopted goes on as it was."""
    serves = Ready(Happening.READY, f"{one.named()} is ready")
    if not _concerns(one, seen) or not seen.warm:
        return serves
    place = _place(one, seen)
    if place is not None and place.weight > 0 and not place.leaving:
        return serves
    count = len(_serving(seen))
    if count >= seen.serve_count or (place is not None and place.warm):
        return Ready(Happening.RESTED, f"{one.named()} is ready and stands by: {count} serve")
    return serves


def note(one: Standing, seen: Seen) -> Note | None:
    """Whether this one is called up now, or rests."""
    if not _concerns(one, seen):
        return None
    serving = _serving(seen)
    if one.state is ReplicaState.WARM and len(serving) < seen.serve_count and one is _next(seen):
        why = f"{one.named()} stood by and is called: {len(serving)} of {seen.serve_count} replicas serve"
        return Note(name=one.name, happening=Happening.CALLED, why=why)
    if one.state is ReplicaState.SERVING and len(serving) > seen.serve_count:
        warm = [other for other in seen.replicas() if other.wanted and other.state is ReplicaState.WARM]
        idlest = min((other for other in serving if other.state is ReplicaState.SERVING), key=_work)
        if len(warm) < seen.warm and one is idlest:
            why = f"{one.named()} stands by: {len(serving)} serve where {seen.serve_count} are wanted"
            return Note(name=one.name, happening=Happening.RESTED, why=why)
    return None


def _concerns(one: Standing, seen: Seen) -> bool:
    return seen.serve is not None and not seen.stopping and one.role is Role.REPLICA and not one.model and one.wanted


def _serving(seen: Seen) -> list[Standing]:
    """Those that serve, adopted ones that were not heard yet among them: nobody has accused them."""
    return [one for one in seen.replicas() if one.wanted and _serves(one, seen)]


def _serves(one: Standing, seen: Seen) -> bool:
    if one.state is not ReplicaState.STARTING or not one.fact.alive:
        return one.state is ReplicaState.SERVING
    place = _place(one, seen)
    return place is not None and place.weight > 0 and not place.leaving


def _place(one: Standing, seen: Seen) -> Place | None:
    pid = one.fact.pid
    return next((place for place in seen.roster.places if place.replica == one.name and place.pid == pid and pid), None)


def _next(seen: Seen) -> Standing | None:
    """Who is called first: of a release that serves, the one that has stood by longest. Where there are several kinds, one of a
    kind that nobody serves any more goes before: answers wait for it."""
    release, kinds = seen.roster.release, seen.roster.kinds
    digests = {kind.digest for kind in kinds} or ({release.digest} if release is not None else set())
    served = {other.fact.release.digest for other in _serving(seen) if kinds and other.fact.release is not None}
    wishes = seen.wishes
    able = [
        one
        for one in seen.replicas()
        if one.wanted
        and one.state is ReplicaState.WARM
        and one.fact.ready
        and one.fact.ailment is None
        and one.name not in wishes.drained
        and one.name not in wishes.condemned
    ]

    def rank(one: Standing) -> tuple[bool, bool, float, str]:
        own = one.fact.release.digest if one.fact.release is not None else ""
        return bool(digests and own) and own not in digests, own in served, one.since, one.name

    return min(able, key=rank, default=None)


def _work(one: Standing) -> tuple[int, str]:
    load = one.fact.load
    return (load.running + load.queued if load is not None else 0, one.name)
