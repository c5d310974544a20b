"""A site in virtual time: a simulated host, the files of a state folder, and one supervisor after another."""

import asyncio
from collections.abc import Callable

from msgspec import structs

from holdfast.domain.ailment import Ailment
from holdfast.domain.board import WorkerView
from holdfast.domain.event import Event
from holdfast.domain.ports import Child
from holdfast.domain.procedure import Done, Step
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Restart
from holdfast.domain.site import ProcessView, Role
from holdfast.domain.wish import Wishes
from holdfast.fleet.crew import SMALLER
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.loop import run as run_procedure
from holdfast.policy.supervision import Rules
from holdfast.sim.clock import VirtualClock
from holdfast.sim.host import SimHost

WANTED = ("replica-0", "replica-1", "gateway-0", "control")
RULES = Rules(restart=Restart(first_delay_s=10), silent_s=4.0)


class Cut(Exception):
    """The supervisor was killed here."""


class Renewed(Exception):
    """The supervisor has become a new one: here that is the end of the old."""


class Mortal:
    """A procedure that dies before or after its n-th act."""

    def __init__(self, inner: Supervise, acts: int, before: bool) -> None:
        self._inner, self._left, self._before = inner, acts, before
        self.look, self.next_step = inner.look, inner.next_step

    async def act(self, step: Step) -> None:
        self._left -= 1
        if self._left <= 0 and self._before:
            raise Cut
        await self._inner.act(step)
        if self._left <= 0:
            raise Cut


class Supervised:
    """A host, the files of a site, and one supervisor after another."""

    def __init__(self, *wanted: str, rules: Rules = RULES) -> None:
        self.clock = VirtualClock()
        self.host = SimHost(self.clock)
        self.wanted, self.rules = wanted or WANTED, rules
        self.roster = Roster()
        self.rosters: list[Roster] = []
        self.events: list[Event] = []
        self.views: tuple[ProcessView, ...] = ()
        self.words = ""
        self.wishes = Wishes()
        self.ailments: dict[str, Ailment] = {}
        self.resettable = False
        self.resets: list[str] = []
        self.swept: list[str] = []
        self.board: list[WorkerView] = []
        self.supervise: Supervise
        self.ears: Ears
        self.wake: asyncio.Event

    def hire(self) -> Supervise:
        """A fresh supervisor that remembers nothing. As in app/supervisor.py it begins with the wishes as they are."""
        self.wake = asyncio.Event()
        epoch = self.wishes.epoch
        self.host.on_death = lambda name: self.wake.set()
        self.ears = self.listen()
        hands = Hands(
            wake=self.wake,
            host=self.host,
            ears=self.ears,
            clock=self.clock,
            emit=self.events.append,
            read_run=self.host.run_of,
            clear_run=lambda name: None,
            last_words=lambda name: self.words,
            read_roster=lambda: self.roster,
            publish=self._publish,
            show=self._show,
            age_s=float,
            draw=lambda: 0.0,
            read_wishes=lambda: self.wishes,
            change_wishes=self._change_wishes,
            read_pulse=self.host.pulse,
            ailments=self._ailment,
            renew=self._renew,
            read_views=self._views,
            reset=self._reset if self.resettable else None,
            sweep=self.swept.append,
        )
        wants = [
            Want(
                role=_role(name),
                child=Child(name=name, argv=("sim",), epoch=epoch),
                device="cuda:0",
                model="tiny" if name.startswith(SMALLER) else "",
            )
            for name in self.names()
        ]
        self.supervise = Supervise(wants, self.rules, hands, epoch)
        return self.supervise

    def names(self) -> list[str]:
        """What is wanted, by the names of this upgrade."""
        epoch = self.wishes.epoch
        return [f"{name}.{epoch}" if epoch and name.startswith(Role.GATEWAY) else name for name in self.wanted]

    def wish(self, wishes: Wishes) -> None:
        """An operator's command: the file changes, and the supervisor is woken."""
        self.wishes = wishes
        self.wake.set()

    def listen(self) -> Ears:
        """The ears of the next supervisor."""
        return Ears(self.host.dial, self.clock, 0.5, self.wake.set)

    async def serve(self) -> Done:
        """Run the supervisor to its end, through all its renewals."""
        try:
            while True:
                try:
                    return await run_procedure(self.supervise, self.clock, self.events.append, self.wake)
                except Renewed:
                    await self.ears.close()
                    self.hire()
        finally:
            await self.ears.close()

    async def serve_for(self, seconds: float) -> None:
        """Let a supervisor work for a while, then kill it."""
        task = asyncio.create_task(self.serve())
        await self.clock.sleep(seconds)
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def cut_after(self, acts: int, before: bool) -> bool:
        """Let a fresh supervisor live for so many acts. False when it had nothing left to do for a minute."""
        mortal = Mortal(self.hire(), acts, before)
        life = asyncio.create_task(run_procedure(mortal, self.clock, self.events.append, self.wake))
        minute = asyncio.create_task(self.clock.sleep(60))
        await asyncio.wait({life, minute}, return_when=asyncio.FIRST_COMPLETED)
        died = life.done()
        for task in (life, minute):
            task.cancel()
        results = await asyncio.gather(life, minute, return_exceptions=True)
        assert isinstance(results[0], Cut | Renewed | asyncio.CancelledError), results[0]
        await self.ears.close()
        return died

    def as_wanted(self) -> None:
        """The invariants of a site that is well: each wanted process runs once, and the roster is exactly the living."""
        alive = self.host.alive()
        out = {*self.wishes.drained, *self.wishes.condemned}
        assert sorted(alive) == sorted(name for name in self.names() if name not in out)
        told = [one for one in self.host.told if one[0].startswith(Role.REPLICA)]
        assert len(set(told)) == len(told), "a replica was told to leave twice: it would have cut its streams"
        replicas = {name: process for name, process in self.host.processes.items() if process.replica is not None}
        assert {place.replica: place.boot for place in self.roster.places} == {
            name: process.replica.boot for name, process in replicas.items() if process.alive
        }
        assert all(place.weight == 1 and not place.leaving for place in self.roster.places)
        epochs = [roster.epoch for roster in self.rosters]
        assert epochs == sorted(set(epochs)), "an epoch was used twice"

    def whys(self, *kinds: type[Event]) -> list[str]:
        return [event.why for event in self.events if isinstance(event, kinds)]

    def _publish(self, roster: Roster) -> None:
        for place in roster.places:
            process = self.host.processes[place.replica]
            assert process.pid == place.pid, "a roster named a process that is not the one that runs"
        self.roster = roster
        self.rosters.append(roster)

    def _views(self) -> list[WorkerView]:
        """What the workers tell: always the newest."""
        return [structs.replace(view, at=self.clock.now()) for view in self.board]

    def _change_wishes(self, revise: Callable[[Wishes], Wishes]) -> None:
        self.wishes = revise(self.wishes)

    def _ailment(self, name: str) -> Ailment | None:
        """Evidence is of one life: what was found in a process is not held against the next one."""
        found, process = self.ailments.get(name), self.host.processes.get(name)
        return found if found is not None and process is not None and process.ready_at <= found.since else None

    def _renew(self) -> None:
        raise Renewed

    async def _reset(self, device: str) -> None:
        self.resets.append(device)

    def _show(self, views: tuple[ProcessView, ...], roster: Roster) -> None:
        self.views = views


def _role(name: str) -> Role:
    return Role.REPLICA if name.startswith(SMALLER) else next(role for role in Role if name.startswith(role))
