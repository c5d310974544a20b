"""Wishes, revised: what a command or the supervisor makes of them, or why it is refused.

Pure: the store calls these with the wishes as they are at that moment, with nobody else in between.
"""

from collections.abc import Sequence

from msgspec import Struct, structs

from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings_overload import Scaling
from holdfast.domain.site import ProcessView, Role
from holdfast.domain.wish import Wishes

HOST = "host"
WILL_SERVE = (ReplicaState.SERVING, ReplicaState.WARM, ReplicaState.STARTING, ReplicaState.SUSPECT)
REPLICAS_MAX = 64  # as in [replica] count
_SETTLED = "the number of replicas is that of [replica] count"


class Asked(Struct, frozen=True, kw_only=True):
    """The wishes as they are now to be, whom they concern, and a sentence."""

    wishes: Wishes
    names: tuple[str, ...]
    why: str


class Refused(Struct, frozen=True, kw_only=True):
    """Nothing is changed. The sentence names what to do instead."""

    why: str


def targets(target: str, site: Sequence[ProcessView]) -> tuple[str, ...] | Refused:
    """The replicas that a target means: its name, cuda:0 (or gpu:0) for all on that device, host for all of them.

    On a device is also who has not said yet which of several it got, while that may be this one.
    """
    replicas = [one for one in site if one.role is Role.REPLICA]
    device = target.replace("gpu:", "cuda:", 1) if target.startswith("gpu:") else target
    names = tuple(one.name for one in replicas if target in (HOST, one.name) or device in _devices(one))
    if names:
        return names
    if any(one.name == target for one in site):
        return Refused(why=f"{target} is no replica: only replicas are drained; holdfast upgrade replaces the others")
    known = (
        [one.name for one in replicas]
        + sorted({each for one in replicas for each in _devices(one) if ":" in each})
        + [HOST]
    )
    return Refused(why=f"there is no replica {target!r}: name one of {', '.join(known)}")


def _devices(one: ProcessView) -> list[str]:
    """Where it computes, or may."""
    return [each.strip() for each in one.device.split(",") if each.strip()]


def drain(wishes: Wishes, site: Sequence[ProcessView], target: str, why: str, force: bool = False) -> Asked | Refused:
    """Wish that the target's replicas move their streams and stop. The last one that serves is only drained by force."""
    names = targets(target, site)
    if isinstance(names, Refused):
        return names
    fresh = tuple(name for name in names if name not in wishes.drained)
    serving = [one.name for one in site if one.role is Role.REPLICA and not one.model and one.state in WILL_SERVE]
    left = [name for name in serving if name not in names and name not in wishes.drained]
    if serving and not left and not force and fresh:
        many = "the last replica that serves" if len(names) == 1 else "all replicas that serve"
        return Refused(
            why=f"{', '.join(names)}: {'is' if len(names) == 1 else 'are'} {many}. Bring another into service first "
            "(holdfast undrain NAME, or more with [replica] count), or end the service with --force"
        )
    after = structs.replace(wishes, drained={**wishes.drained, **dict.fromkeys(names, why)})
    return Asked(wishes=after, names=names, why=f"{', '.join(names)} will move its streams and stop")


def undrain(wishes: Wishes, site: Sequence[ProcessView], target: str) -> Asked | Refused:
    """Wish that the target's replicas run again: drained, condemned or in quarantine for their deaths."""
    names = targets(target, site)
    if isinstance(names, Refused):
        gone = tuple(name for name in (*wishes.drained, *wishes.condemned) if target in (name, HOST))
        if not gone:
            return names
        names = gone  # of a site that has fewer replicas by now: let it be forgotten
    after = structs.replace(
        wishes,
        drained={name: why for name, why in wishes.drained.items() if name not in names},
        condemned={name: why for name, why in wishes.condemned.items() if name not in names},
        pardons={**wishes.pardons, **{name: wishes.pardons.get(name, 0) + 1 for name in names}},
    )
    return Asked(wishes=after, names=names, why=f"{', '.join(names)} may run again")


def scale(wishes: Wishes, count: int | None, scaling: Scaling, force: bool = False) -> Asked | Refused:
    """Wish that so many replicas serve, whatever the load; None gives the number back to the load or the settings."""
    if count is None:
        after = structs.replace(wishes, count=None)
        return Asked(wishes=after, names=(), why="the number of replicas follows the load" if scaling.on else _SETTLED)
    if not 0 <= count <= REPLICAS_MAX:
        return Refused(why=f"{count} replicas: a site has 0 to {REPLICAS_MAX}")
    if count == 0 and not force:
        return Refused(why="no replica at all ends the service: say --force if that is meant, or holdfast down")
    if scaling.on and not force and not scaling.min <= count <= scaling.max:
        bounds = f"[scaling] allows {scaling.min} to {scaling.max}"
        return Refused(why=f"{count} replicas: {bounds}. Change the settings, or say --force")
    also = ", until: holdfast scale auto" if scaling.on else ""
    return Asked(wishes=structs.replace(wishes, count=count), names=(), why=f"{count} replicas should serve{also}")


def scaled(wishes: Wishes, count: int) -> Wishes:
    """So many replicas does the load need, as the supervisor found."""
    return structs.replace(wishes, scaled=count)


def upgrade(
    wishes: Wishes, site: Sequence[ProcessView], replicas: bool = False, force: bool = False
) -> Asked | Refused:
    """Wish that everything older than now is replaced: supervisor, workers, control plane, and with `replicas` those too."""
    here = [one for one in site if one.role is Role.REPLICA and not one.model and one.name not in wishes.drained]
    able = [one for one in here if not one.away]
    if replicas and len(able) == 1 < len(here):
        gone = next(one for one in here if one.away)
        return Refused(
            why=f"{able[0].name} is the only replica with an engine, since {gone.name} {gone.why}. Replacing it interrupts the "
            f"service: wait until that engine is back, or holdfast drain {' '.join(one.name for one in here if one.away)} "
            "and say --force"
        )
    if replicas and len(here) == 1 and not force:
        return Refused(
            why=f"{here[0].name} is the only replica: replacing it interrupts the service while another one loads. "
            "Run two with [replica] count, or say --force"
        )
    after = upgraded(wishes)
    if replicas:
        after = structs.replace(after, replicas_epoch=after.epoch)
    what = "supervisor, workers, control plane" + (" and replicas" if replicas else "")
    names = tuple(one.name for one in site if replicas or one.role is not Role.REPLICA)
    return Asked(wishes=after, names=names, why=f"upgrade {after.epoch}: {what} are replaced, one after the other")


def upgraded(wishes: Wishes) -> Wishes:
    """One upgrade more."""
    return structs.replace(wishes, epoch=wishes.epoch + 1, refused="")


def refuse_upgrade(wishes: Wishes, epoch: int, why: str) -> Wishes:
    """Back to the upgrade that the supervisor belongs to."""
    replicas_epoch = min(wishes.replicas_epoch, epoch)
    return structs.replace(wishes, epoch=epoch, replicas_epoch=replicas_epoch, refused=why)


def finish(wishes: Wishes, epoch: int) -> Wishes:
    """This upgrade is complete. Where the file was lost meanwhile, epochs count on from here."""
    return structs.replace(wishes, epoch=max(wishes.epoch, epoch), finished_epoch=max(wishes.finished_epoch, epoch))


def condemn(wishes: Wishes, name: str, why: str) -> Wishes:
    """This replica must not run before somebody has looked at it."""
    return structs.replace(wishes, condemned={**wishes.condemned, name: why})


def afresh(wishes: Wishes) -> Wishes:
    """Nothing runs: there is nothing older to replace, epochs count from 0 again, and no load was seen. Drained replicas
    stay so."""
    return structs.replace(wishes, epoch=0, replicas_epoch=0, finished_epoch=0, refused="", scaled=0)
