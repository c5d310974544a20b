"""Supervision as a Procedure: gathers the facts, lets policy/supervision.py decide, and obeys.

Everything it remembers (standings, deaths) may be lost at any moment with its process: the next supervisor adopts what runs
and goes on from what it sees. The roster is read back too, so that a supervisor's death never takes a replica out of it.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec import Struct, structs

from holdfast.domain import event as events
from holdfast.domain.event import Emit, Event
from holdfast.domain.ports import Child, Clock, Host, Sighting
from holdfast.domain.procedure import Done, Step, Wait
from holdfast.domain.replica import Happening, ReplicaState
from holdfast.domain.roster import Roster
from holdfast.domain.site import ProcessView, Role, Run
from holdfast.fleet.probe import Ears
from holdfast.policy import supervision
from holdfast.policy.supervision import Fact, Rules, Seen, Standing


class Want(Struct, frozen=True, kw_only=True):
    """A process that should run."""

    role: Role
    child: Child


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What a supervisor works with; app/supervisor.py connects it with the state folder.

    read_run: a child's run file, None while there is none. clear_run: remove it before a start. last_words: the last line of
    a child's log. publish: make a roster the one that gateways read. show: tell the others what was seen. draw: a seeded
    generator's next number in [0, 1). Those that write raise OSError.
    """

    wake: asyncio.Event  # set by whoever knows that something has happened
    host: Host
    ears: Ears
    clock: Clock
    emit: Emit
    read_run: Callable[[str], Run | None]
    clear_run: Callable[[str], None]
    last_words: Callable[[str], str]
    read_roster: Callable[[], Roster]
    publish: Callable[[Roster], None]
    show: Callable[[tuple[ProcessView, ...], Roster], None]
    age_s: Callable[[int], float]
    draw: Callable[[], float]


class Supervise:
    """Keeps the wanted processes of one host alive."""

    def __init__(self, wants: Iterable[Want], rules: Rules, hands: Hands) -> None:
        self._wants = {want.child.name: want for want in wants}
        self._rules, self._hands = rules, hands
        self._standings: dict[str, Standing] = {}
        self._roster = hands.read_roster()
        self.stopping, self._failed = "", False
        self._trusted_since = hands.clock.now()
        self._doubting_since: float | None = None
        self._due: float | None = None
        self._ready = False
        self._shown: tuple[tuple[object, ...], float] = ((), float("-inf"))

    def stop(self, why: str) -> None:
        """End the site in order; `loop.run` returns when nothing runs any more."""
        self.stopping = self.stopping or why
        self._hands.wake.set()

    def hurry(self) -> None:
        """Somebody is impatient: what still runs is killed instead of asked."""
        self._rules = structs.replace(self._rules, replica_grace_s=0.0, gateway_grace_s=0.0, control_grace_s=0.0)
        self._standings = {name: structs.replace(one, told_at=None) for name, one in self._standings.items()}
        self._hands.wake.set()

    async def look(self) -> Seen:
        """Sightings, run files and what the ears have heard, folded into the standings."""
        now = self._hands.clock.now()
        sightings = {sighting.name: sighting for sighting in await self._hands.host.look()}
        runs = {name: self._run_of(name, sighting) for name, sighting in sightings.items()}
        self._hands.ears.follow(
            {
                name: (run.listen, run.boot)
                for name, run in runs.items()
                if run is not None and self._role(name) is Role.REPLICA
            }
        )
        for name in dict.fromkeys((*self._wants, *sightings)):
            one = self._standings.get(name) or Standing(name=name, role=self._role(name), since=now)
            fact = self._fact(name, sightings.get(name), runs.get(name))
            self._standings[name] = structs.replace(one, wanted=name in self._wants, fact=fact)
        since = self._doubting_since
        if since is not None and any((one.fact.heard_at or 0) > since for one in self._standings.values()):
            self._doubting_since = None
        late_s = 0.0 if self._due is None else max(0.0, now - self._due)
        self._due = None
        self._show(sightings, now)
        self._tell_ready()
        return Seen(
            standings=tuple(self._standings.values()),
            roster=self._roster,
            stopping=self.stopping,
            failed=self._failed,
            late_s=late_s,
            trusted_since=self._trusted_since,
            doubting_since=self._doubting_since,
        )

    def next_step(self, seen: Seen, now: float) -> Step | Wait | Done:
        """Ask the policy."""
        step = supervision.next_step(seen, self._rules, now)
        if isinstance(step, Wait):
            self._due = step.until
        return step

    async def act(self, step: Step) -> None:
        """Carry out one step of the policy. Raises OSError when the machine refuses."""
        now = self._hands.clock.now()
        match step:
            case supervision.Start(name=name):
                self._hands.clear_run(name)
                sighting = await self._hands.host.start(self._wants[name].child)
                self._note(name, Happening.STARTED, step.why, now)
                self._hands.emit(events.ProcessStarted(name=name, pid=sighting.pid, why=step.why))
            case supervision.Tell(name=name, grace_s=grace_s):
                await self._hands.host.stop(name, grace_s)
                self._standings[name] = structs.replace(self._standings[name], told_at=now)
            case supervision.Kill(name=name):
                await self._hands.host.stop(name, 0)
                self._standings[name] = structs.replace(self._standings[name], killed_at=now)
            case supervision.Note(name=name, happening=happening):
                one = self._standings[name]
                self._note(name, happening, step.why, now)
                told = _event_of(one, happening, step.why, now - max(one.fact.heard_at or 0, self._trusted_since))
                if told is not None:
                    self._hands.emit(told)
            case supervision.Forget(name=name):
                self._hands.host.forget(name)
                self._hands.clear_run(name)
                del self._standings[name]
            case supervision.Publish(roster=roster):
                self._publish(roster, step.why)
            case supervision.Doubt(all_silent=all_silent):
                self._trusted_since = self._trusted_since if all_silent else now
                self._doubting_since = now if all_silent else self._doubting_since
                self._hands.emit(events.SelfDoubted(observer="supervisor", why=step.why))
            case supervision.Halt():
                self._failed = True
                self.stop(step.why)

    def standings(self) -> tuple[Standing, ...]:
        """As of the last look."""
        return tuple(self._standings.values())

    def _role(self, name: str) -> Role:
        want = self._wants.get(name)
        if want is not None:
            return want.role
        return next((role for role in Role if name.startswith(role)), Role.CONTROL)

    def _run_of(self, name: str, sighting: Sighting) -> Run | None:
        """The run file of exactly this life."""
        run = self._hands.read_run(name) if sighting.alive else None
        return run if run is not None and run.token == sighting.token and run.pid == sighting.pid else None

    def _fact(self, name: str, sighting: Sighting | None, run: Run | None) -> Fact:
        if sighting is None:
            return Fact()
        if not sighting.alive:
            words = self._hands.last_words(name) if sighting.exit_code else ""
            return Fact(pid=sighting.pid, exit_code=sighting.exit_code, last_words=words)
        if run is None:
            return Fact(alive=True, pid=sighting.pid)
        if self._role(name) is not Role.REPLICA:
            return Fact(alive=True, pid=sighting.pid, boot=run.boot, address=run.listen, ready=run.ready)
        heard = self._hands.ears.heard(name, run.boot)
        return Fact(
            alive=True,
            pid=sighting.pid,
            boot=run.boot,
            address=run.listen,
            ready=heard is not None and not heard.load.draining,
            heard_at=heard.at if heard else None,
            load=heard.load if heard else None,
            release=heard.release if heard else None,
        )

    def _note(self, name: str, happening: Happening, why: str, now: float) -> None:
        self._standings[name] = supervision.noted(self._standings[name], happening, why, now, self._hands.draw())

    def _publish(self, roster: Roster, why: str) -> None:
        self._hands.publish(roster)
        before = {(place.replica, place.boot) for place in self._roster.places}
        after = {(place.replica, place.boot) for place in roster.places}
        self._roster = roster
        for name, _ in sorted(before - after):
            self._hands.emit(events.ReplicaLost(replica=name, why=why))
        for name, _ in sorted(after - before):
            self._hands.emit(events.ReplicaJoined(replica=name, why=why))

    def _tell_ready(self) -> None:
        doors = [one for one in self._standings.values() if one.role is Role.GATEWAY and one.served_at is not None]
        if self._ready or not doors or not self._roster.places or self.stopping:
            return
        self._ready = True
        who = ", ".join(place.replica for place in self._roster.places)
        self._hands.emit(
            events.SiteReady(address=doors[0].fact.address, why=f"{doors[0].name} listens, {who} may serve")
        )

    def _show(self, sightings: dict[str, Sighting], now: float) -> None:
        """Tell what was seen: at every change, and once a second for the loads."""
        ones = self._standings.values()
        essence = (self._roster, *((one.name, one.state, one.fact.pid, one.why) for one in ones))
        if essence == self._shown[0] and now - self._shown[1] < 1.0:
            return
        self._shown = (essence, now)
        views = tuple(
            ProcessView(
                name=one.name,
                role=one.role,
                state=one.state,
                why=_reason(one),
                pid=one.fact.pid if one.fact.alive else 0,
                uptime_s=round(self._hands.age_s(sightings[one.name].start_ticks), 1) if one.fact.alive else 0.0,
                restarts=one.restarts,
                address=one.fact.address,
                load=one.fact.load,
            )
            for one in ones
        )
        self._hands.show(views, self._roster)


def _reason(one: Standing) -> str:
    """What somebody who looks at this process wants to know: why it is not in service, or why it was started again."""
    if one.state is ReplicaState.SERVING:
        return f"started again: {one.deaths[-1].why}" if one.deaths else ""
    return one.why


def _event_of(one: Standing, happening: Happening, why: str, silent_s: float) -> Event | None:
    """What the others are told of a note; `one` is the standing before it."""
    name, pid = one.name, one.fact.pid
    match happening:
        case Happening.STARTED:
            return events.ProcessAdopted(name=name, pid=pid, why=f"{why} since before this supervisor: adopted")
        case Happening.READY:
            return events.ProcessReady(name=name, pid=pid, why=why)
        case Happening.SILENT:
            streams = one.fact.load.running if one.fact.load else 0
            return events.ReplicaSuspected(replica=name, silent_s=silent_s, streams=streams, why=why)
        case Happening.MOVED:
            return events.ReplicaCleared(replica=name, why=why)
        case Happening.DIED if one.told_at is not None:
            return events.ProcessStopped(name=name, pid=pid, why=why)
        case Happening.DIED:
            return events.ProcessDied(name=name, pid=pid, why=why)
        case Happening.GAVE_UP:
            return events.ProcessQuarantined(name=name, why=why)
        case _:
            return None
