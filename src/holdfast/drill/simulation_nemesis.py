"""What goes wrong in a simulated world, drawn from the seed, and how it is healed.

Two phases, as in TigerBeetle's simulator: while faults are on, safety must hold; after the healing, everything must finish.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec import structs

from holdfast.domain.wish import Wishes
from holdfast.drill.simulation_site import SimSite
from holdfast.sim.network import Way
from holdfast.sim.replica import SimReplica


class Nemesis:
    """Does something bad every `every_s` on average until it is told to heal."""

    def __init__(self, site: SimSite, random: Random, every_s: float = 1.5) -> None:
        self._site, self._random, self._every_s = site, random, every_s
        self.done: Counter[str] = Counter()
        self.log: list[str] = []
        self._undo: list[Callable[[], None]] = []

    async def run(self, seconds: float) -> None:
        """The faults."""
        kinds = [self._replica] * 5 + [self._network] * 3 + [self._worker] * 3 + [self._others] * 2
        kinds = self._random.sample(kinds, k=self._random.randint(4, len(kinds)))
        end = self._site.clock.now() + seconds
        while self._site.clock.now() < end:
            await self._site.clock.sleep(self._random.uniform(0.1, 2 * self._every_s))
            if self._site.check.found:
                return
            what = self._random.choice(kinds)()
            if what:
                self.done[what.split(" ")[0]] += 1
                self.log.append(f"{self._site.clock.now():.2f} {what}")

    def heal(self) -> None:
        """Everything that can be mended is."""
        site = self._site
        for undo in self._undo:
            undo()
        self._undo.clear()
        for process in site.host.processes.values():
            if process.replica is not None:
                self._well(process.replica)
        for way in site.ground.ways.values():
            way.heal()
        for worker in site.living():
            site.thaw(worker)
            worker.doomed = False
        site.ground.shelves.full = ""
        site.ground.wishes = Wishes(
            epoch=site.ground.wishes.epoch,
            replicas_epoch=site.ground.wishes.replicas_epoch,
            finished_epoch=site.ground.wishes.finished_epoch,
            condemned=site.ground.wishes.condemned,
        )
        if site.boss.life is None:
            site.boss.hire()
        elif site.boss.life.frozen:
            site.boss.life.thaw()
        site.boss.wake.set()

    def _well(self, one: SimReplica) -> None:
        one.frozen = one.lying = False
        one.refusing, one.cut_after, one.step_s = "", None, self._site.ground.step_s
        one.stuck.clear()

    def _later(self, undo: Callable[[], None], seconds: float) -> None:
        """Heal one thing by itself, or with everything else."""

        def once() -> None:
            if undo in self._undo:
                self._undo.remove(undo)
                undo()

        self._undo.append(undo)
        asyncio.get_running_loop().call_later(seconds, once)

    # kinds

    def _replica(self) -> str:
        ready = [p for p in self._site.host.processes.values() if p.alive and p.replica is not None]
        if not ready:
            return ""
        process = self._random.choice(ready)
        one, random = process.replica, self._random
        assert one is not None
        kind = random.choice(("kill", "kill", "crash", "freeze", "slow", "lie", "cut", "refuse", "stick"))
        seconds = random.uniform(0.2, 8.0)
        if kind == "kill":
            self._site.host.kill(process.name)
        elif kind == "crash":
            one.kill("CUDA error: an illegal memory access was encountered")
            one.on_death("crash")
        elif kind == "freeze":
            one.frozen = True
            self._later(lambda: self._thaw(one), seconds)
        elif kind == "slow":
            one.step_s = self._site.ground.step_s * random.choice((3, 10))
            self._later(lambda: self._well(one), seconds)
        elif kind == "lie":
            one.lying = True
            self._later(lambda: self._tell_the_truth(one), seconds)
        elif kind == "cut":
            one.cut_after = random.choice((0, 1, 7))
            self._later(lambda: self._well(one), min(seconds, 3.0))
        elif kind == "refuse":
            one.refusing = "the queue is full"
            self._later(lambda: self._well(one), seconds)
        else:
            one.stuck.update(stream.generation for line in one.lines for stream in list(line.streams())[:1])
        return f"{kind} {process.name}"

    def _thaw(self, one: SimReplica) -> None:
        if one.alive:
            one.frozen = False

    def _tell_the_truth(self, one: SimReplica) -> None:
        one.lying = False

    def _network(self) -> str:
        random = self._random
        ways = [(key, way) for key, way in self._site.ground.ways.items() if way.lanes]
        if not ways:
            return ""
        key, way = random.choice(ways)
        kind = random.choice(("hold", "delay", "half-open", "reset", "garbage"))
        if kind == "hold":
            way.holds = True
            self._later(way.heal, random.uniform(0.05, 3.0))
        elif kind == "delay":
            way.slow_down(random.uniform(0.01, 0.5), random.uniform(0.0, 0.5))
            self._later(way.heal, random.uniform(1.0, 6.0))
        elif kind == "half-open":
            way.black_out()
        else:
            self._break(key, way, "connection reset by peer" if kind == "reset" else "it sent what can't be read")
        return f"{kind} {key[0]}-{key[1]}"

    def _break(self, key: tuple[str, str], way: Way, why: str) -> None:
        """Every connection on a way ends, for both sides."""
        for process in self._site.host.processes.values():
            if process.replica is not None and process.name == key[1]:
                for line in [one for one in process.replica.lines if one.who.partition("/")[0] == key[0]]:
                    process.replica.reset(line, why)
                    self._site.check.dead.add(line.boot)
        for worker in self._site.living():
            if key[0] == "street" and worker.name == key[1]:
                for wire in list(worker.wires):
                    wire.reset()
                    worker.heed((wire, None))

    def _worker(self) -> str:
        random = self._random
        ready = [one for one in self._site.living() if one.ready]
        if not ready:
            return ""
        one = random.choice(ready)
        kind = random.choice(("worker-kill", "worker-torn", "worker-freeze", "worker-late"))
        if kind == "worker-kill":
            self._site.check.worker_deaths += 1
            self._site.host.kill(one.name)
        elif kind == "worker-torn":
            self._site.check.worker_deaths += 1
            one.doomed = True
        else:
            self._site.check.worker_deaths += 1  # frozen long enough it is killed; others go on with what it knew
            self._site.freeze(one)
            self._later(lambda: self._site.thaw(one), random.uniform(0.3, 1.2) if kind == "worker-late" else 6.0)
        return f"{kind} {one.who}"

    def _others(self) -> str:
        site, random = self._site, self._random
        kind = random.choice(("supervisor-kill", "supervisor-freeze", "journal-full", "drain", "upgrade", "clock"))
        if kind == "supervisor-kill":
            site.boss.dismiss()
            self._later(self._hire, random.uniform(0.1, 5.0))
        elif kind == "supervisor-freeze" and site.boss.life is not None:
            boss = site.boss.life
            boss.freeze()
            self._later(boss.thaw, random.uniform(0.5, 8.0))
        elif kind == "journal-full":
            site.ground.shelves.full = "No space left on device"
            self._later(self._make_room, random.uniform(0.5, 5.0))
        elif kind == "drain":
            number = random.randrange(site.ground.replicas)
            if site.ground.warm and not number:
                kind = "scale"
                site.ground.wishes = _scaled(site.ground.wishes)
            else:
                site.ground.wishes = _drained(site.ground.wishes, f"replica-{number}")
            site.boss.wake.set()
        elif kind == "upgrade":
            site.ground.wishes = _upgraded(site.ground.wishes)
            site.boss.wake.set()
        else:
            site.ground.unix_offset_s += random.choice((-3600.0, 3600.0))
        return kind

    def _hire(self) -> None:
        if self._site.boss.life is None:
            self._site.boss.hire()

    def _make_room(self) -> None:
        self._site.ground.shelves.full = ""


def _drained(wishes: Wishes, name: str) -> Wishes:
    """The operator drains a replica, or lets it serve again."""
    drained = dict(wishes.drained)
    if name in drained:
        del drained[name]
    elif not drained:
        drained[name] = "maintenance"
    return _with(wishes, drained, wishes.epoch)


def _scaled(wishes: Wishes) -> Wishes:
    """The operator wants one replica to serve, or as many as before."""
    return structs.replace(wishes, count=1 if wishes.count is None else None)


def _upgraded(wishes: Wishes) -> Wishes:
    return _with(wishes, wishes.drained, wishes.epoch + 1)


def _with(wishes: Wishes, drained: dict[str, str], epoch: int) -> Wishes:
    return Wishes(
        drained=drained,
        condemned=wishes.condemned,
        pardons=wishes.pardons,
        epoch=epoch,
        replicas_epoch=wishes.replicas_epoch,
        finished_epoch=wishes.finished_epoch,
    )
