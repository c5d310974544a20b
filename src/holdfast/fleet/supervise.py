"""Supervision as a Procedure: gathers the facts, lets policy/supervision.py decide, and obeys.

Everything it remembers (standings, deaths) may be lost at any moment with its process: the next supervisor adopts what runs
and goes on from what it sees. The roster is read back too, so that a supervisor's death never takes a replica out of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from msgspec import structs

from holdfast.domain import event as events
from holdfast.domain.ailment import Ailment
from holdfast.domain.board import WorkerView
from holdfast.domain.event import Emit
from holdfast.domain.ports import Child, Clock, Host, Sighting
from holdfast.domain.procedure import Done, Step, Wait
from holdfast.domain.replica import Happening, ReplicaState
from holdfast.domain.roster import Roster
from holdfast.domain.site import ProcessView, Role, Run
from holdfast.domain.wish import Wishes
from holdfast.fleet import notices
from holdfast.fleet.crew import Crew, Want
from holdfast.fleet.probe import Ears
from holdfast.policy import escalation, leaving, supervision, wishes
from holdfast.policy.muster import Mustered
from holdfast.policy.scaling import Wanted
from holdfast.policy.supervision import Fact, Rules, Seen, Standing

__all__ = ["Hands", "Supervise", "Want"]

Revise = Callable[[Wishes], Wishes]


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What a supervisor works with; app/supervisor.py connects it with the state folder.

    read_run: a child's run file, None while there is none. clear_run: remove it before a start. last_words: the last line of
    a child's log. publish: make a roster the one that gateways read. show: tell the others what was seen. draw: a seeded
    generator's next number in [0, 1). Those that write raise OSError.

    read_wishes, change_wishes: what operators want beyond the settings. read_pulse: the last sign of life of the worker whose
    run file names this pulse. ailments: what is wrong with a process that runs and answers, by name. equip: a child as it is
    started now, with what only a living supervisor can give it. renew: become a new supervisor in this very process, after
    which nothing here goes on; raises OSError when that is refused. reset: reset a device; None where nobody can. sweep: end
    what a dead replica may have left of its engine.
    read_views: what the gateway workers tell on the board; scaling goes by it.
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
    read_wishes: Callable[[], Wishes] = Wishes
    change_wishes: Callable[[Revise], object] = lambda revise: revise(Wishes())
    read_pulse: Callable[[str], float | None] = lambda path: None
    ailments: Callable[[str], Ailment | None] = lambda name: None
    equip: Callable[[Want], Child] = lambda want: want.child
    renew: Callable[[], None] = lambda: None
    reset: Callable[[str], Awaitable[None]] | None = None
    sweep: Callable[[str], None] = lambda name: None
    read_views: Callable[[], list[WorkerView]] = list


class Supervise:
    """Keeps the wanted processes of one host alive. `epoch`: the upgrade that this supervisor itself belongs to."""

    def __init__(self, wants: Iterable[Want], rules: Rules, hands: Hands, epoch: int = 0) -> None:
        self._crew = Crew(wants, rules, hands.read_views)
        self._rules, self._hands, self._epoch = rules, hands, epoch
        self._wishes = hands.read_wishes()
        self._standings: dict[str, Standing] = {}
        self._roster = hands.read_roster()
        self.stopping, self._failed = "", False
        self._trusted_since = hands.clock.now()
        self._doubting_since: float | None = None
        self._due: float | None = None
        self._ready = False
        self._unpublished = self._told_unpublished = False
        self._alarms: dict[str, str] = {}
        self._mustered: Mustered | None = None
        self._scale_why = ""
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
        if self._unpublished:
            self._write_roster(self._roster)
        self._wishes = self._hands.read_wishes()
        on_file = self._hands.read_roster()
        if on_file != self._roster and not self._unpublished:  # somebody changed it: publish what is missing
            self._roster = structs.replace(on_file, epoch=max(on_file.epoch, self._roster.epoch))
        sightings = {sighting.name: sighting for sighting in await self._hands.host.look()}
        runs = {name: self._run_of(name, sighting) for name, sighting in sightings.items()}
        self._hands.ears.follow(
            {
                name: (run.listen, run.boot)
                for name, run in runs.items()
                if run is not None and run.ready and self._crew.role(name) is Role.REPLICA
            }
        )
        wanted = self._muster()
        for name in dict.fromkeys((*wanted, *sightings)):
            one = self._standings.get(name) or self._fresh(name, now)
            fact = self._fact(name, sightings.get(name), runs.get(name))
            told = one.announced_at if fact.boot and fact.boot == one.fact.boot else now if fact.boot else None
            staged = now if fact.stage and fact.stage != one.fact.stage else one.staged_at
            self._standings[name] = structs.replace(
                one,
                wanted=name in wanted,
                device=fact.device or one.device,  # as last told: one that is down was there
                fact=fact,
                announced_at=told,
                staged_at=staged,
            )
        since = self._doubting_since
        replicas = (one for one in self._standings.values() if one.role is Role.REPLICA)
        if since is not None and any((one.fact.heard_at or 0) > since for one in replicas):
            self._doubting_since = None
        late_s = 0.0 if self._due is None else max(0.0, now - self._due)
        self._due = None
        self._show(sightings, now)
        self._tell_ready()
        seen = Seen(
            standings=tuple(self._standings.values()),
            roster=self._roster,
            wishes=self._wishes,
            epoch=self._epoch,
            resettable=self._hands.reset is not None,
            stopping=self.stopping,
            failed=self._failed,
            late_s=late_s,
            trusted_since=self._trusted_since,
            doubting_since=self._doubting_since,
            serve=self._mustered.serve if self._mustered is not None else None,
            warm=self._rules.warm,
            scaling=self._load_asks(now),
        )
        self._raise_alarms(seen)
        return seen

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
                sighting = await self._hands.host.start(self._hands.equip(self._crew.wants[name]))
                self._note(supervision.Note(name=name, happening=Happening.STARTED, why=step.why), now)
                self._hands.emit(events.ProcessStarted(name=name, pid=sighting.pid, why=step.why))
            case supervision.Tell(name=name, grace_s=grace_s):
                await self._hands.host.stop(name, grace_s)
                self._standings[name] = structs.replace(self._standings[name], told_at=now)
            case supervision.Kill(name=name, suspected=suspected):
                await self._hands.host.stop(name, 0)
                one = self._standings[name]
                self._standings[name] = structs.replace(one, killed_at=now, blamed=one.blamed or suspected)
            case supervision.Note():
                one = self._standings[step.name]
                self._note(step, now)
                for told in notices.events_of(one, step, now - max(one.fact.heard_at or 0, self._trusted_since)):
                    self._hands.emit(told)
                if step.happening is Happening.DIED and one.role is Role.REPLICA:
                    self._hands.sweep(step.name)
                    if one.state is ReplicaState.DRAINING and not self.stopping:
                        self._hands.emit(notices.drained(one, now))
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
            case _:
                await self._act_seldom(step, now)

    async def _act_seldom(self, step: Step, now: float) -> None:
        """The steps of upgrades, and of what is found in a replica that runs and answers."""
        match step:
            case supervision.Condemn(name=name):
                self._hands.change_wishes(partial(wishes.condemn, name=name, why=step.why))
            case supervision.Reset(name=name, device=device):
                if self._hands.reset is not None:
                    await self._hands.reset(device)
                self._standings[name] = structs.replace(self._standings[name], deaths=(), reset_at=now)
            case supervision.Scale(count=count):
                self._hands.change_wishes(partial(wishes.scaled, count=count))
                self._scale_why = step.why
            case supervision.Refresh():
                self._hands.change_wishes(wishes.upgraded)
            case supervision.Renew(epoch=epoch):
                self._hands.emit(events.UpgradeBegun(epoch=epoch, why=step.why))
                try:
                    self._hands.renew()
                except OSError as error:
                    self._hands.change_wishes(partial(wishes.refuse_upgrade, epoch=self._epoch, why=str(error)))
                    raise
            case supervision.Finish(epoch=epoch):
                self._hands.change_wishes(partial(wishes.finish, epoch=epoch))
                self._hands.emit(events.UpgradeEnded(epoch=epoch, why=step.why))

    def standings(self) -> tuple[Standing, ...]:
        """As of the last look."""
        return tuple(self._standings.values())

    def _muster(self) -> list[str]:
        """Who should run now. Another number than before is told."""
        before, self._mustered = self._mustered, self._crew.muster(self._standings, self._wishes)
        now = self._mustered
        if before is not None and now is not None and before.serve != now.serve:
            why = self._scale_why if self._wishes.count is None else ""
            why = why or f"{now.serve} replicas instead of {before.serve}: {now.why}"
            self._hands.emit(events.SiteScaled(before=before.serve, after=now.serve, why=why))
            self._scale_why = ""
        return self._crew.names(now)

    def _load_asks(self, now: float) -> Wanted | None:
        if self._mustered is None or self.stopping:
            return None
        return self._crew.load_asks(self._standings.values(), self._mustered.serve, now)

    def _fresh(self, name: str, now: float) -> Standing:
        crew = self._crew
        return Standing(
            name=name,
            role=crew.role(name),
            device=crew.device(name),
            model=crew.model(name),
            since=now,
            pardons=self._wishes.pardons.get(name, 0),
        )

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
        fact = Fact(alive=True, pid=sighting.pid, epoch=sighting.epoch, ailment=self._hands.ailments(name))
        if run is None:
            return fact
        fact = structs.replace(fact, device=run.device)
        replica = self._crew.role(name) is Role.REPLICA
        if replica and not run.ready:
            return structs.replace(fact, stage=run.stage, engine=run.engine, away=run.away)
        fact = structs.replace(fact, boot=run.boot, address=run.listen, box=run.box, engine=run.engine)
        if not replica:
            return structs.replace(fact, ready=run.ready, heard_at=self._hands.read_pulse(run.pulse))
        heard = self._hands.ears.heard(name, run.boot)
        return structs.replace(
            fact,
            ready=heard is not None and not heard.load.draining,
            heard_at=heard.at if heard else None,
            load=heard.load if heard else None,
            release=heard.release if heard else None,
        )

    def _note(self, note: supervision.Note, now: float) -> None:
        one = supervision.noted(self._standings[note.name], note, now, self._hands.draw())
        if note.happening is Happening.PARDONED:
            one = structs.replace(one, pardons=self._wishes.pardons.get(note.name, 0))
        self._standings[note.name] = one

    def _publish(self, roster: Roster, why: str) -> None:
        self._unpublished = True
        self._write_roster(roster)
        before = {(place.replica, place.boot) for place in self._roster.places if place.weight > 0}
        after = {(place.replica, place.boot) for place in roster.places if place.weight > 0}
        self._roster = roster
        for name, _ in sorted(before - after):
            self._hands.emit(events.ReplicaLost(replica=name, why=why))
        for name, _ in sorted(after - before):
            self._hands.emit(events.ReplicaJoined(replica=name, why=why))

    def _write_roster(self, roster: Roster) -> None:
        """Where it can't be written, supervision goes on as if it were, and every look tries again."""
        try:
            self._hands.publish(roster)
        except OSError as error:
            if not self._told_unpublished:
                why = f"roster {roster.epoch} can't be written: {error}. Gateways go on with what they see themselves"
                self._hands.emit(events.StepFailed(procedure="supervise", step="publish", why=why))
            self._told_unpublished = True
        else:
            self._unpublished = self._told_unpublished = False

    def _tell_ready(self) -> None:
        doors = [one for one in self._standings.values() if one.role is Role.GATEWAY and one.served_at is not None]
        places = [place.replica for place in self._roster.places if place.weight > 0 and not place.model]
        if self._ready or not doors or not places or self.stopping:
            return
        self._ready = True
        who = ", ".join(places)
        self._hands.emit(
            events.SiteReady(address=doors[0].fact.address, why=f"{doors[0].name} listens, {who} may serve")
        )

    def _raise_alarms(self, seen: Seen) -> None:
        """Tell what concerns several replicas at once: when it begins, and again only after it was over."""
        suspects, held = leaving.frozen(seen)
        found = {"ejection": held, "host": escalation.alarm(seen)}
        begun = [kind for kind, why in found.items() if why and not self._alarms.get(kind)]
        self._alarms = found
        replicas = sum(1 for one in seen.of(Role.REPLICA) if one.wanted)
        if "ejection" in begun:
            self._hands.emit(events.EjectionFrozen(suspects=suspects, replicas=replicas, why=held))
        if "host" in begun:
            out = sum(1 for one in seen.of(Role.REPLICA) if one.state is ReplicaState.QUARANTINED)
            self._hands.emit(events.HostAiling(quarantined=out, replicas=replicas, why=found["host"]))

    def _show(self, sightings: dict[str, Sighting], now: float) -> None:
        """Tell what was seen: at every change, and once a second for the loads."""
        ones = self._standings.values()
        essence = (self._roster, self._wishes, *map(_essence, ones))
        if essence == self._shown[0] and now - self._shown[1] < 1.0:
            return
        self._shown = (essence, now)
        views = tuple(
            ProcessView(
                name=one.name,
                role=one.role,
                state=one.state,
                why=notices.reason(one, self._wishes),
                pid=one.fact.pid if one.fact.alive else 0,
                uptime_s=round(self._hands.age_s(sightings[one.name].start_ticks), 1) if one.fact.alive else 0.0,
                restarts=one.restarts,
                address=one.fact.address,
                load=one.fact.load,
                device=one.device,
                epoch=one.fact.epoch,
                model=one.model,
                stage=one.fact.stage,
                away=leaving.away(one),
                engine=one.fact.engine or (one.fact.release.engine if one.fact.release is not None else ""),
            )
            for one in ones
        )
        self._hands.show(views, self._roster)


def _essence(one: Standing) -> tuple[object, ...]:
    return one.name, one.state, one.fact.pid, one.why, one.fact.stage, one.device, one.fact.away
