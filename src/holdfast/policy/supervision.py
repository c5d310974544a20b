"""Supervision: what should be done next so that the site is as it is wanted?

One pure function, `next_step`, over everything that was seen. It is level-triggered: each look it finds the first thing that
is not as it should be and names the one step that mends it. The order of the rules is their meaning:

    1  an observer that was late doubts itself before anybody else
    2  what has happened to processes is taken down (domain/replica.py's table says what it makes of their state)
    3  the roster is published, before any process is told or started: traffic first
    4  what should not run is told to leave; what does not leave, or is frozen, is killed
    5  what should run is started, at the pace that restart_intensity allows

Silence: a replica that has not answered a ping for half of `silent_s` leaves the roster, at `silent_s` it is killed. But where
all of several replicas fall silent at once, the likelier cause is our own machine: nobody is judged for DOUBT_FACTOR times
as long.
"""

from msgspec import Struct, structs

from holdfast.domain.procedure import Done, Step, Wait
from holdfast.domain.release import Release
from holdfast.domain.replica import Happening, Load, ReplicaState, move
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import Restart
from holdfast.domain.site import Role
from holdfast.policy import restart_intensity
from holdfast.policy.restart_intensity import Death

DOUBT_FACTOR = 6.0
FAULTY_START = 2  # exit code of a child that can't be started with these settings
LOOK_S = 1.0  # look at least this often, whatever happens
LIVE = (ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.SUSPECT, ReplicaState.DRAINING)
STOP_ORDER = (Role.GATEWAY, Role.REPLICA, Role.CONTROL)


class Rules(Struct, frozen=True, kw_only=True):
    """The settings that supervision goes by. Seconds."""

    restart: Restart = Restart()
    silent_s: float = 5.0
    late_s: float = 1.0  # a look that comes later than this after its moment is unfit to judge
    replica_grace_s: float = 30.0
    gateway_grace_s: float = 30.0
    control_grace_s: float = 5.0


class Fact(Struct, frozen=True, kw_only=True):
    """What is seen of a process now. A process that does not exist has `alive` False and no `exit_code`."""

    alive: bool = False
    pid: int = 0
    exit_code: int | None = None
    last_words: str = ""  # last line that a dead one wrote to its log
    boot: str = ""
    address: str = ""
    ready: bool = False  # its run file is there, and a replica has answered too
    heard_at: float | None = None  # replicas: when a ping was last answered
    load: Load | None = None
    release: Release | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """One process, as its supervisor remembers it. Lost with the supervisor, and found again by looking."""

    name: str
    role: Role
    wanted: bool = True
    state: ReplicaState = ReplicaState.DOWN
    since: float = 0.0  # when it came into this state
    why: str = ""
    started_at: float = 0.0
    served_at: float | None = None  # when this life became ready
    load_s: float = 0.0  # how long the slowest start took
    deaths: tuple[Death, ...] = ()
    restarts: int = 0
    told_at: float | None = None
    killed_at: float | None = None
    fact: Fact = Fact()

    def named(self) -> str:
        return f"{self.name} (pid {self.fact.pid})" if self.fact.pid else self.name


class Seen(Struct, frozen=True, kw_only=True):
    """The world. `trusted_since`: silences are measured from here at the earliest. `stopping`: why the site must end."""

    standings: tuple[Standing, ...]
    roster: Roster = Roster()
    stopping: str = ""
    failed: bool = False  # it stops because it could not come up
    late_s: float = 0.0
    trusted_since: float = 0.0
    doubting_since: float | None = None


class Start(Step, frozen=True, kw_only=True):
    name: str


class Tell(Step, frozen=True, kw_only=True):
    """SIGTERM, and SIGKILL after the grace."""

    name: str
    grace_s: float


class Kill(Step, frozen=True, kw_only=True):
    name: str


class Note(Step, frozen=True, kw_only=True):
    """Take down what happened to a process."""

    name: str
    happening: Happening


class Forget(Step, frozen=True, kw_only=True):
    """Neither wanted nor there."""

    name: str


class Publish(Step, frozen=True, kw_only=True):
    roster: Roster


class Doubt(Step, frozen=True, kw_only=True):
    """Judge nobody by what was (not) heard before now. `all_silent` tells which of the two doubts it is."""

    all_silent: bool


class Halt(Step, frozen=True, kw_only=True):
    """This site can't come up: stop it, and say why."""


def next_step(seen: Seen, rules: Rules, now: float) -> Step | Wait | Done:
    """The first thing that is not as it should be, or how long all is well."""
    if seen.late_s > rules.late_s:
        return Doubt(why=f"this look came {seen.late_s:.1f} s late: silences are counted from now", all_silent=False)
    all_silent = _all_silent(seen, rules, now)
    if all_silent and seen.doubting_since is None:
        return Doubt(
            why="all replicas fell silent at once: it is likelier that this machine is starved", all_silent=True
        )
    judging = not all_silent or now - (seen.doubting_since or now) >= (DOUBT_FACTOR - 1) * rules.silent_s
    for one in seen.standings:
        note = _note(one, seen, rules, now, judging)
        if note is not None:
            return note
    publish = _publish(seen)
    if publish is not None:
        return publish
    leave = _leave(seen, rules) or _kill(seen, rules, now, judging)
    if leave is not None:
        return leave
    if seen.stopping:
        return _stopped(seen, now)
    return _start(seen, rules, now)


def silence_s(one: Standing, seen: Seen, now: float) -> float:
    """How long a replica has not been heard, in seconds; 0 for one that can't be heard yet."""
    if one.role is not Role.REPLICA or one.served_at is None:
        return 0.0
    return now - max(one.fact.heard_at or 0.0, one.served_at, seen.trusted_since)


def _all_silent(seen: Seen, rules: Rules, now: float) -> bool:
    there = [o for o in seen.standings if o.state in (ReplicaState.SERVING, ReplicaState.SUSPECT) and o.fact.alive]
    silences = [silence_s(one, seen, now) for one in there if one.role is Role.REPLICA]
    limit_s = rules.silent_s / 2
    return len(silences) > 1 and min(silences) > limit_s and max(silences) - min(silences) < limit_s


def _note(one: Standing, seen: Seen, rules: Rules, now: float, judging: bool) -> Note | None:
    fact, state = one.fact, one.state
    if state in LIVE and not fact.alive:
        return Note(name=one.name, happening=Happening.DIED, why=f"{one.named()} {_end(one)}")
    if state not in LIVE and fact.alive:
        return Note(name=one.name, happening=Happening.STARTED, why=f"{one.named()} runs")
    if state is ReplicaState.STARTING and fact.ready:
        return Note(name=one.name, happening=Happening.READY, why=f"{one.named()} is ready")
    silent_s = silence_s(one, seen, now)
    if state is ReplicaState.SUSPECT and silent_s <= rules.silent_s / 2 and fact.ready:
        return Note(name=one.name, happening=Happening.MOVED, why=f"{one.named()} answers again")
    if state is ReplicaState.SERVING and silent_s > rules.silent_s / 2 and judging:
        return Note(
            name=one.name, happening=Happening.SILENT, why=f"{one.named()} has answered no ping for {silent_s:.1f} s"
        )
    should_leave = one.role is _leaving(seen) if seen.stopping else not one.wanted
    if state in LIVE and state is not ReplicaState.DRAINING and should_leave:
        why = seen.stopping or "it is not wanted any more"
        return Note(name=one.name, happening=Happening.TOLD_TO_LEAVE, why=f"{one.named()} has to leave: {why}")
    return None


def _end(one: Standing) -> str:
    """How a process ended, as the rest of a sentence."""
    code = one.fact.exit_code
    words = f": {one.fact.last_words}" if one.fact.last_words else ""
    if code is None:
        return "is gone"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with code {code}{words if code else ''}"


def _publish(seen: Seen) -> Publish | None:
    serving = [one for one in seen.standings if one.role is Role.REPLICA and one.state is ReplicaState.SERVING]
    adopted = _adopted(seen)
    release = next((one.fact.release for one in serving if one.fact.release is not None), seen.roster.release)
    places = tuple(
        Place(replica=one.name, address=one.fact.address, boot=one.fact.boot, pid=one.fact.pid)
        for one in serving
        if one.fact.release is None or release is None or one.fact.release.digest == release.digest
    )
    places = tuple(sorted((*places, *adopted), key=lambda place: place.replica))
    roster = structs.replace(seen.roster, release=release, places=places)
    if roster == seen.roster:
        return None
    who = ", ".join(place.replica for place in places) or "nobody"
    return Publish(
        roster=structs.replace(roster, epoch=seen.roster.epoch + 1),
        why=f"roster {seen.roster.epoch + 1}: {who} may serve",
    )


def _adopted(seen: Seen) -> list[Place]:
    """Places of replicas that live on from before our own start and have not answered us yet: nobody has accused them."""
    starting = {o.name: o.fact.pid for o in seen.standings if o.state is ReplicaState.STARTING and o.fact.alive}
    return [place for place in seen.roster.places if place.pid and starting.get(place.replica) == place.pid]


def _leaving(seen: Seen) -> Role | None:
    """The role whose turn it is to leave: the first in STOP_ORDER of which anything still lives."""
    living = {one.role for one in seen.standings if one.fact.alive or one.state in LIVE}
    return next((role for role in STOP_ORDER if role in living), None)


def _leave(seen: Seen, rules: Rules) -> Tell | Forget | None:
    grace_s = {
        Role.GATEWAY: rules.gateway_grace_s,
        Role.REPLICA: rules.replica_grace_s,
        Role.CONTROL: rules.control_grace_s,
    }
    for one in seen.standings:
        if one.state is ReplicaState.DRAINING and one.told_at is None:
            return Tell(name=one.name, grace_s=grace_s[one.role], why=f"tell {one.named()} to leave")
        if not one.wanted and one.state not in LIVE and not one.fact.alive:
            return Forget(name=one.name, why=f"{one.name} is neither wanted nor there")
    return None


def _kill(seen: Seen, rules: Rules, now: float, judging: bool) -> Kill | None:
    for one in seen.standings:
        if one.killed_at is not None and now - one.killed_at < rules.silent_s:
            continue
        silent_s = silence_s(one, seen, now)
        if one.state is ReplicaState.SUSPECT and silent_s > rules.silent_s and judging:
            return Kill(
                name=one.name,
                why=f"kill {one.named()}: it answered no ping for {silent_s:.1f} s, the limit is {rules.silent_s:g} s",
            )
        starting_s = now - max(one.started_at, seen.trusted_since)
        if one.state is ReplicaState.STARTING and starting_s > rules.restart.start_s:
            return Kill(name=one.name, why=f"kill {one.named()}: it is not ready after {starting_s:.0f} s")
    return None


def _stopped(seen: Seen, now: float) -> Wait | Done:
    left = [one.named() for one in seen.standings if one.fact.alive or one.state in LIVE]
    if left:
        return Wait(now + LOOK_S, f"waiting for {', '.join(left)} to leave")
    return Done(f"everything has stopped: {seen.stopping}", ok=not seen.failed)


def _start(seen: Seen, rules: Rules, now: float) -> Step | Wait:
    halt = _hopeless(seen)
    if halt is not None:
        return halt
    until, whys = now + LOOK_S, []
    for one in seen.standings:
        if one.state is not ReplicaState.DOWN or not one.wanted:
            continue
        if _faulty(one) and one.role is Role.REPLICA:
            return Note(name=one.name, happening=Happening.GAVE_UP, why=f"{one.name} can't be started: {_words(one)}")
        tireless = one.role is not Role.REPLICA  # no gateway, no site: it is tried for ever
        verdict = restart_intensity.ask(one.deaths, rules.restart, one.load_s, now, tireless)
        if isinstance(verdict, restart_intensity.GiveUp):
            return Note(name=one.name, happening=Happening.GAVE_UP, why=f"{one.name} is quarantined: {verdict.why}")
        if isinstance(verdict, restart_intensity.Again):
            return Start(name=one.name, why=f"start {one.name}: {verdict.why}")
        until = min(until, verdict.at)
        whys.append(f"{one.name}, {verdict.why}")
    return Wait(until, "; ".join(whys) or "all is well")


def _hopeless(seen: Seen) -> Halt | None:
    """A site that never came up and never will: better an end with a reason than a door that leads nowhere."""
    wanted = [one for one in seen.standings if one.wanted]
    replicas = [one for one in wanted if one.role is Role.REPLICA]
    if replicas and all(one.state is ReplicaState.QUARANTINED and one.load_s == 0 for one in replicas):
        return Halt(why=replicas[0].why)
    gateways = [one for one in wanted if one.role is Role.GATEWAY]
    if gateways and all(_faulty(one) for one in gateways):
        return Halt(why=f"{gateways[0].name} can't be started: {_words(gateways[0])}")
    return None


def _faulty(one: Standing) -> bool:
    """Whether its start ended with the code that says: with these settings it will never work."""
    return (
        one.state is ReplicaState.DOWN and one.load_s == 0 and bool(one.deaths) and one.fact.exit_code == FAULTY_START
    )


def _words(one: Standing) -> str:
    return one.fact.last_words or "it gave no reason"


def noted(one: Standing, happening: Happening, why: str, now: float, jitter: float) -> Standing:
    """The standing after something has happened. `jitter` in [0, 1) is written into a death.

    Raises:
        IllegalMove: the table does not know this move.
    """
    one = structs.replace(one, state=move(one.state, happening), since=now, why=why)
    if happening is Happening.STARTED:
        restarts = one.restarts + (1 if one.deaths else 0)
        return structs.replace(one, started_at=now, served_at=None, told_at=None, killed_at=None, restarts=restarts)
    if happening is Happening.READY:
        return structs.replace(one, served_at=now, load_s=max(one.load_s, now - one.started_at, 0.001))
    if happening is Happening.DIED and one.told_at is None:
        served_s = 0.0 if one.served_at is None else now - one.served_at
        death = Death(at=now, served_s=served_s, why=why, jitter=jitter)
        return structs.replace(one, deaths=(*one.deaths, death)[-16:], served_at=None)
    return one
