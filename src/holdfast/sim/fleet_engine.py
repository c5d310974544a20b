"""The replicas of a simulated fleet, and how a gateway worker chooses among them: with the real balance, affinity, lane, breaker.

A replica is a queue of prompts to read and a batch that steps; an answer is one event at its end, at the speed that the batch
had when it began. That is coarse for one answer and right for many, and a thousand replicas cost no more than ten.
"""

from collections.abc import Callable, Iterable

from holdfast.domain.board import ReplicaView
from holdfast.policy.affinity import Affinity
from holdfast.policy.balance import Ask, Candidate, Picked, choose, share_of
from holdfast.policy.breaker import Breaker
from holdfast.policy.lane import Lane
from holdfast.policy.room import Place, Room
from holdfast.sim.fleet_plan import Engines, Job

CACHED_MAX = 512  # beginnings in a replica's cache, the oldest leave


class Replica:
    """One replica. `sick` is the share of its answers that end in an error."""

    __slots__ = ("boot", "boots", "born_at", "breaker", "cached", "name", "read_until", "running", "sick", "up")

    def __init__(self, name: str) -> None:
        self.name, self.boots, self.boot = name, 0, f"{name}/0"
        self.up, self.sick = True, 0.0
        self.born_at = float("-inf")
        self.running: dict[str, Job] = {}
        self.read_until = 0.0
        self.cached: dict[int, None] = {}  # identities of prompts
        self.breaker = Breaker()

    def begin(self, job: Job, engines: Engines, now: float) -> float:
        """It starts on an answer, or goes on with one. Returns when it will be complete."""
        had = id(job.prompt_ids) in self.cached
        if job.prompt_ids:
            self.cached.pop(id(job.prompt_ids), None)
            self.cached[id(job.prompt_ids)] = None
            if len(self.cached) > CACHED_MAX:
                del self.cached[next(iter(self.cached))]
        read = job.delivered + (0 if had else job.prompt)
        self.read_until = max(now, self.read_until) + read / engines.read_per_s
        self.running[job.id] = job
        job.step_s = engines.step_s * (1.0 - engines.batch_cost * (1.0 - len(self.running) / engines.slots))
        job.start_at = self.read_until
        job.replica = self.boot
        return job.start_at + (job.tokens - job.delivered) * job.step_s

    def die(self, now: float) -> list[Job]:
        """All that it had under way, with what each client has of it."""
        lost = list(self.running.values())
        self.running.clear()
        self.cached.clear()
        self.up, self.read_until = False, 0.0
        for job in lost:
            job.delivered = min(job.tokens - 1, job.delivered + max(0, int((now - job.start_at) / job.step_s)))
        return lost

    def rise(self, now: float) -> None:
        """It is back, as another boot, with an empty cache."""
        self.boots += 1
        self.boot = f"{self.name}/{self.boots}"
        self.up, self.born_at, self.breaker = True, now, Breaker()

    def view(self, engines: Engines) -> ReplicaView:
        """What a worker tells of it."""
        return ReplicaView(
            replica=self.name,
            boot=self.boot,
            running=len(self.running),
            slots=engines.slots,
            tokens_max=engines.tokens_max,
        )


class Shared:
    """What all workers hold on each replica: the board's hot table."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[int, int]] = {}

    def of(self) -> tuple[Callable[[str], tuple[int, int]], Callable[[str, int, int], None]]:
        """One worker's `others` and `changed`."""
        own: dict[str, tuple[int, int]] = {}
        everybody = self._all

        def others(boot: str) -> tuple[int, int]:
            all_streams, all_tokens = everybody.get(boot, (0, 0))
            streams, tokens = own.get(boot, (0, 0))
            return all_streams - streams, all_tokens - tokens

        def changed(boot: str, streams: int, tokens: int) -> None:
            had, held = own.get(boot, (0, 0))
            all_streams, all_tokens = everybody.get(boot, (0, 0))
            everybody[boot] = all_streams + streams - had, all_tokens + tokens - held
            own[boot] = streams, tokens

        return others, changed


class Desk:
    """One worker's choice of replicas. It is the Field that policy.balance draws from."""

    def __init__(
        self, room: Room, replicas: dict[str, Replica], affinity: Affinity | None, slow_start_s: float
    ) -> None:
        self.room = room
        self.lane = Lane()
        self.affinity = affinity
        self._replicas = replicas  # those that are up, by boot
        self._slow_start_s = slow_start_s
        self._job: Job | None = None
        self._now = 0.0

    def cached(self, job: Job) -> int:
        """Tokens of its prompt that a replica is thought to have."""
        if self.affinity is None:
            return 0
        found = self.affinity.find(job.prompt_ids)
        return found.tokens if found.tokens and any(boot in self._replicas for boot in found.near[0]) else 0

    def place(self, job: Job, draw: Callable[[], float], now: float) -> Replica | None:
        """Choose, and hold a place there. None: not yet."""
        self._job, self._now = job, now
        near: tuple[tuple[str, ...], ...] = ()
        if self.affinity is not None and not job.moved:
            near = self.affinity.find(job.prompt_ids).near
        verdict = choose(self, Ask(patient=job.moved > 0, near=near), draw)
        if not isinstance(verdict, Picked):
            return None
        if self.room.take(verdict.boot, job.id, job.hold, job.work):
            return None
        if self.affinity is not None:
            self.affinity.learn(job.prompt_ids, verdict.boot)
        if job.moved:
            self.lane.begin(verdict.boot, job.id, job.prompt + job.delivered)
        return self._replicas[verdict.boot]

    def count(self) -> tuple[int, int]:
        """See policy.balance.Field."""
        return len(self.room.open), len(self._replicas)

    def at(self, number: int) -> Candidate:
        """See policy.balance.Field."""
        return self._candidate(self.room.open[number])

    def named(self, boot: str) -> Candidate | None:
        """See policy.balance.Field."""
        place = self.room.places.get(boot)
        return self._candidate(place) if place is not None and place.serving else None

    def everybody(self) -> Iterable[Candidate]:
        """See policy.balance.Field."""
        return (self._candidate(place) for place in self.room.places.values() if place.serving)

    def load(self) -> tuple[int, int]:
        """See policy.balance.Field. As many answers as this worker holds, times the workers: they are alike."""
        return self.room.used()[0], self.room.total()[0]

    def _candidate(self, place: Place) -> Candidate:
        replica, job = self._replicas[place.boot], self._job
        full = crowded = ""
        if job is not None:
            if place.free <= 0 or job.hold > place.spare:
                full = "it is full"
            if job.moved:
                crowded = self.lane.complaint(place.boot, job.prompt + job.delivered)
        return Candidate(
            replica=replica.name,
            boot=place.boot,
            running=place.streams + place.other_streams,
            slots=place.slots,
            open=replica.breaker.is_open,
            crowded=crowded,
            full=full,
            work=place.work + place.other_tokens,
            share=share_of(self._now - replica.born_at, self._slow_start_s),
        )
