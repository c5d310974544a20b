"""Escalation: what comes after restarting? Each rung is tried only when the one below it was not enough.

    restart       at the pace that policy/restart_intensity.py allows
    reset         of the device, once, where it has one that can be reset: a replica that dies over and over on one GPU may
                  be the GPU's fault
    quarantine    the replica is not started any more before somebody has looked (`holdfast undrain`)
    the host      when half of its replicas or more are in quarantine, the common cause is looked for in the machine: an
                  alarm says so. Taking a whole host out is for whoever sees other hosts.

A start that ended with one of the codes in domain.replica.StartFault is not tried again at all: the weights will not be better,
nor the port free, nor the GPU there, before somebody changes something.
"""

from holdfast.domain.replica import Happening, ReplicaState, StartFault
from holdfast.domain.site import Role
from holdfast.policy import restart_intensity
from holdfast.policy.standing import Halt, Note, Reset, Rules, Seen, Standing, Start

NO_DEVICE = ("", "cpu")


def start(one: Standing, seen: Seen, rules: Rules, now: float) -> Start | Note | Reset | restart_intensity.Later:
    """The rung for a process that is down and wanted."""
    if faulty(one) and one.role is Role.REPLICA:
        why = f"{one.name} can't be started: {_words(one)}"
        return Note(name=one.name, happening=Happening.GAVE_UP, why=why)
    tireless = one.role is not Role.REPLICA  # no gateway, no site: it is tried for ever
    verdict = restart_intensity.ask(one.deaths, rules.restart, one.load_s, now, tireless)
    if isinstance(verdict, restart_intensity.Again):
        return Start(name=one.name, why=f"start {one.name}: {verdict.why}")
    if isinstance(verdict, restart_intensity.Later):
        return verdict
    if seen.resettable and one.device not in NO_DEVICE and one.reset_at is None:
        return Reset(name=one.name, device=one.device, why=f"reset {one.device} for {one.name}: {verdict.why}")
    after = f", also after {one.device} was reset" if one.reset_at is not None else ""
    return Note(name=one.name, happening=Happening.GAVE_UP, why=f"{one.name} is quarantined: {verdict.why}{after}")


def hopeless(seen: Seen) -> Halt | None:
    """A site that never came up and never will: better an end with a reason than a door that leads nowhere."""
    wanted = [one for one in seen.standings if one.wanted]
    replicas = [one for one in wanted if one.role is Role.REPLICA and not one.model]
    if replicas and all(_never_served(one, seen) for one in replicas):
        return Halt(why=replicas[0].why)
    gateways = [one for one in wanted if one.role is Role.GATEWAY]
    if any(one.fact.alive for one in seen.of(Role.GATEWAY)):
        return None  # workers of before an upgrade still answer
    if gateways and all(faulty(one) and one.load_s == 0 for one in gateways):
        return Halt(why=f"{gateways[0].name} can't be started: {_words(gateways[0])}")
    return None


def alarm(seen: Seen) -> str:
    """What an operator has to be told of this host as a whole; empty when nothing."""
    replicas = [one for one in seen.of(Role.REPLICA) if one.wanted]
    out = [one for one in replicas if one.state is ReplicaState.QUARANTINED]
    if len(replicas) < 2 or 2 * len(out) < len(replicas):
        return ""
    names = ", ".join(one.name for one in out)
    return (
        f"{len(out)} of {len(replicas)} replicas of this host are in quarantine ({names}): "
        f"quarantine this host and look for a common cause; the last one says: {max(out, key=_since).why}"
    )


def faulty(one: Standing) -> bool:
    """Whether its last start ended with a code that says: like this it will never work."""
    never_ready = bool(one.deaths) and one.deaths[-1].served_s == 0
    return one.state is ReplicaState.DOWN and never_ready and one.fact.exit_code in list(StartFault)


def _never_served(one: Standing, seen: Seen) -> bool:
    return one.state is ReplicaState.QUARANTINED and one.load_s == 0 and one.name not in seen.wishes.condemned


def _words(one: Standing) -> str:
    return one.fact.last_words or "it gave no reason"


def _since(one: Standing) -> float:
    return one.since
