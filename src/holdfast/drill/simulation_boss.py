"""The supervisor of a simulated site: the real procedure, one life after another, each remembering nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.domain.event import Event
from holdfast.domain.ports import Child, Line
from holdfast.domain.roster import Roster
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.drill.simulation_check import Check
from holdfast.drill.simulation_ground import COARSE_S, Drowsy, Ground
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Want
from holdfast.loop import run as run_procedure
from holdfast.policy.supervision import Rules
from holdfast.sim.lives import Life

PATIENCE_WHEN_QUIET = 20.0  # its limits grow with the time between its looks


class Renewed(Exception):
    """The supervisor becomes a new one in the same process."""


class Boss:
    """Whoever supervises now; `life` is None while nobody does."""

    def __init__(self, ground: Ground, check: Check, dial: Callable[[str, str], Awaitable[Line]]) -> None:
        self._ground, self._check, self._dial = ground, check, dial
        self._lives = 0
        self.life: Life | None = None
        self.wake = asyncio.Event()
        self.drowsy = Drowsy(ground.clock, ground.rest_s)

    def hire(self) -> None:
        """A fresh supervisor."""
        self._lives += 1
        self.life = Life(f"supervisor/{self._lives}")
        self.life.on_crash = lambda error: self._check.violated(f"the supervisor crashed: {error!r}")
        self.life.spawn(self._supervise(self.life.name))

    def dismiss(self) -> None:
        """SIGKILL."""
        if self.life is not None:
            self.life.kill()
            self._ground.hang_up(self.life.name)
            self.life = None

    def names(self) -> list[str]:
        """What is wanted, by the names of this upgrade."""
        ground, epoch = self._ground, self._ground.wishes.epoch
        count = ground.settings.gateway.workers
        workers = [f"gateway-{n}.{epoch}" if epoch else f"gateway-{n}" for n in range(count)]
        return [f"replica-{n}" for n in range(ground.replicas + ground.warm)] + workers

    async def _supervise(self, who: str) -> None:
        ground = self._ground
        while True:
            wake = self.wake = asyncio.Event()
            ground.host.on_death = lambda name: self.wake.set()
            every_s = COARSE_S if ground.quiet else ground.settings.probe.every_s
            ears = Ears(lambda address: self._hear(address, who), ground.clock, every_s, wake.set)
            hands = self._hands(wake, ears, who)
            supervise = ground.plant.supervise(self._wants(), self._rules(), hands, ground.wishes.epoch)
            try:
                await run_procedure(supervise, self.drowsy, hands.emit, wake)
            except Renewed:
                await ears.close()

    async def _hear(self, address: str, who: str) -> Line:
        return await self._dial(address.removeprefix("sim:"), who)

    def _rules(self) -> Rules:
        s = self._ground.settings
        patience = PATIENCE_WHEN_QUIET if self._ground.quiet else 1.0
        return Rules(
            restart=s.restart,
            silent_s=s.probe.silent_s * patience,
            worker_silent_s=s.probe.worker_silent_s * patience,
            late_s=3.0 * patience,
            replica_grace_s=s.replica.drain_s + 1,
            gateway_grace_s=s.gateway.drain_s + 5,
            count=self._ground.replicas,
            warm=self._ground.warm,
            mixed=len(self._ground.plant.kinds) > 1,
        )

    def _wants(self) -> list[Want]:
        return [
            Want(
                role=Role.REPLICA if name.startswith(Role.REPLICA) else Role.GATEWAY,
                child=Child(name=name, argv=("sim",), epoch=self._ground.wishes.epoch),
            )
            for name in self.names()
        ]

    def _hands(self, wake: asyncio.Event, ears: Ears, who: str) -> Hands:
        ground = self._ground

        def renew() -> None:
            raise Renewed

        def change(revise: Callable[[Wishes], Wishes]) -> None:
            ground.wishes = revise(ground.wishes)

        def emit(event: Event) -> None:
            ground.events[type(event).__name__] += 1
            self._check.event(who, event)

        return Hands(
            wake=wake,
            host=ground.host,
            ears=ears,
            clock=ground.clock,
            emit=emit,
            read_run=ground.host.run_of,
            clear_run=lambda name: None,
            last_words=lambda name: "",
            read_roster=lambda: ground.roster,
            publish=self._publish,
            show=lambda views, roster: None,
            age_s=float,
            draw=ground.random.random,
            read_wishes=lambda: ground.wishes,
            change_wishes=change,
            read_pulse=self._pulse,
            renew=renew,
        )

    def _pulse(self, path: str) -> float | None:
        process = self._ground.host.processes.get(path.removeprefix("sim:"))
        return None if process is None else self._ground.pulses.get(process.pid)

    def _publish(self, roster: Roster) -> None:
        self._check.published(roster)
        self._ground.roster = roster
