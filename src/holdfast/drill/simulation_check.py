"""What must hold in a simulated world, looked at whenever something happens that could break it.

    I1  tokens that a client got are a prefix of the true answer: none lost, doubled, reordered or changed;
        nothing is sent that the journal does not hold already; of two owners of one answer only the last may send
        (of answers that ran while their worker's journal was off both rest: their header says that they are not kept)
    I2  every request ends exactly once: whole, or with a typed fault that a stated rule allows
    I3  nothing is sent to a replica that is leaving or has left; requests that kill cost two engines each; one that
        leaves no word, or had another suspect on trial beside it, up to two more; and one more each time that
        it goes on in other hands, since what a worker knows of an answer ends with it there
    I4  counts balance: a roster's epoch only grows; one Idempotency-Key, one answer
    I6  places, room, shares, the queue, reservations of quota, permits, cells, records, lines: all back to nothing when
        nothing runs
    I7  after the healing everything ends, and the site is as it is wanted

Faults that a client may see, and when: Overloaded always (nothing was begun); Expired after its deadline; Poisonous for
a prompt that kills engines, EngineLost for it too; EngineLost when the answer has moved as often as
    it may, or when its record was cut short because the journal was full. A broken connection
may end the answers only of clients that did not ask for a resumable one, and only when their worker died or was replaced.
"""

from collections import Counter

from holdfast.domain.event import Event, RequestCondemned
from holdfast.domain.fault import BadRequest, EngineLost, Expired, Fault, Overloaded, Poisonous
from holdfast.domain.request import Finish, Generation
from holdfast.domain.roster import Roster
from holdfast.drill.simulation_ground import Ground, Hand, Told
from holdfast.sim.line import RELEASE
from holdfast.sim.replica import POISON_FROM, SimReplica, answer, length, own_seed

DEATHS_EACH = 4


class Violated(AssertionError):
    """An invariant does not hold: the sentence says which, when, and for whom."""


def is_poison(generation: Generation) -> bool:
    return any(one >= POISON_FROM for one in generation.prompt_ids)


class Check:
    """Takes down what happens, and raises nothing itself: `found` is looked at after every instant."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.found: list[str] = []
        self.asked: dict[str, Generation] = {}
        self.begun: dict[str, set[str]] = {}  # by idempotency digest: ids of answers that were begun under it
        self.dead: set[str] = set()  # boots that have died, or broke off their connections
        self.tried: dict[str, set[str]] = {}  # boots that an answer has been on
        self.engine_deaths: Counter[tuple[int, ...]] = Counter()
        self.left_at: dict[str, float] = {}  # boots: since when they get nothing any more
        self.journal_off = False
        self.unkept: set[str] = set()  # answers that ran while their worker's journal was off
        self.worker_deaths = 0
        self.handed_on = 0  # how often a request that kills went on in other hands, which know nothing of its past
        self.answers = self.tokens = self.moved = self.resumed = 0
        self.faults: Counter[str] = Counter()
        self._epoch = -1

    def violated(self, why: str) -> None:
        """Take down a violation."""
        self.found.append(f"at {self._ground.clock.now():.3f} s: {why}")

    def raise_found(self) -> None:
        """Raises Violated."""
        if self.found:
            raise Violated(self.found[0])

    # what is watched

    def event(self, who: str, event: Event) -> None:
        """Every event of every process."""
        kind = type(event).__name__
        if kind in ("JournalOff", "JournalOn"):
            self.journal_off = True
            worker = next((one for one in self._ground.living() if one.who == who), None)
            self.unkept.update(worker.journal.live if worker is not None and worker.ready else ())
        if isinstance(event, RequestCondemned):
            asked = self.asked.get(event.generation)
            died = self.dead & self.tried.get(event.generation, set())
            if asked is not None and not is_poison(asked) and len(died) < 2:
                self.violated(f"I3: {event.generation}, an innocent, was condemned: {event.why}")
        self.moved += kind == "AnswerMoved"

    def sent(self, worker: Hand, told: Told) -> None:
        """A worker is about to send."""
        self._delivered(told)
        live = worker.journal.live.get(told.name)
        if not told.own or told.chunk is None or not told.chunk.ids or live is None or live.fenced:
            return
        if worker.journal.complaint or live.unfit or told.name in self.unkept:
            return
        if len(live.ids) < told.place:
            self.violated(f"I1: {worker.who} sends token {told.place} of {told.name} before it is in the journal")
        for other in self._ground.living():
            theirs = other.journal.live.get(told.name) if other.ready and other is not worker else None
            if theirs is not None and theirs.owners > live.owners and not theirs.fenced:
                self.violated(f"I1: {worker.who} still sends of {told.name}, which {other.who} has taken over")

    def _delivered(self, told: Told) -> None:
        """I4: one key, one answer."""
        asked = self.asked.get(told.name)
        if asked is None or not asked.idempotency or told.chunk is None or not told.chunk.ids:
            return
        names = self.begun.setdefault(asked.idempotency, set())
        if told.name not in names:
            names.add(told.name)
            if len(names) > 1 and not self.journal_off:
                self.violated(f"I4: {sorted(names)} were answered under one Idempotency-Key")

    def submitted(self, who: str, generation: Generation) -> None:
        """A worker begins an attempt on a replica."""
        process = self._ground.host.processes.get(generation.replica)
        boot = process.replica.boot if process is not None and process.replica is not None else ""
        self.tried.setdefault(generation.id, set()).add(boot)
        since = self.left_at.get(boot)
        worker = next((one for one in self._ground.living() if one.who == who), None)
        awake = worker is not None and self._ground.clock.now() - worker.thawed_at > 1.0
        if since is not None and awake and self._ground.clock.now() - since > 1.0:
            self.violated(f"I3: {who} sends {generation.id} to {boot}, which has been leaving since {since:.2f} s")

    def poisoned(self, replica: SimReplica) -> None:
        """A replica died of a request."""
        if replica.killer is None:
            return
        prompt = tuple(replica.killer.prompt_ids)
        self.engine_deaths[prompt] += 1
        guilty = {tuple(one.prompt_ids) for one in self.asked.values() if is_poison(one)}
        if sum(self.engine_deaths.values()) > DEATHS_EACH * len(guilty) + self.worker_deaths + self.handed_on:
            self.violated(
                f"I3: {len(guilty)} requests that kill have cost {sum(self.engine_deaths.values())} engines, "
                f"{replica.killer.id} alone {self.engine_deaths[prompt]}"
            )

    def published(self, roster: Roster) -> None:
        """The supervisor publishes."""
        if roster.epoch <= self._epoch:
            self.violated(f"I4: roster {roster.epoch} after roster {self._epoch}")
        self._epoch = roster.epoch
        now = self._ground.clock.now()
        staying = {place.boot for place in roster.places if place.weight > 0 and not place.leaving}
        for place in self._ground.roster.places:
            if place.boot not in staying:
                self.left_at.setdefault(place.boot, now)
        for boot in staying:
            self.left_at.pop(boot, None)

    # how answers end

    def ended(self, asked: Generation, ids: list[int], finish: Finish | None, fault: Fault | None, why: str) -> None:
        """A client is done. `why`: why it gave up or was broken off, if so."""
        self.answers += 1
        self.tokens += len(ids)
        count, true_finish = length(asked)
        kinds = self._ground.plant.kinds or (RELEASE,)
        truths = [answer(asked.prompt_ids, own_seed(kind, asked), count) for kind in kinds]
        true = next(
            (one for one in truths if ids[:1] == one[:1]), truths[0]
        )  # as its first token's engine would have it
        if ids != true[: len(ids)]:
            at = next((n for n, (a, b) in enumerate(zip(ids, true, strict=False)) if a != b), len(true))
            self.violated(f"I1: {asked.id} differs from the truth at token {at} of {len(ids)}")
        elif fault is None and not why and (len(ids), finish) != (count, true_finish):
            self.violated(f"I2: {asked.id} ended with {finish} after {len(ids)} of {count} tokens")
        elif fault is not None:
            self.faults[type(fault).__name__] += 1
            complaint = self._complaint(asked, fault)
            if complaint:
                self.violated(f"I2: {asked.id}: {complaint}: {fault!r}")

    def _complaint(self, asked: Generation, fault: Fault) -> str:
        now = self._ground.clock.now()
        if isinstance(fault, Overloaded):
            return ""
        if isinstance(fault, Poisonous):
            died = max((len(self.dead & boots) for name, boots in self.tried.items() if same(name, asked)), default=0)
            return "" if is_poison(asked) or died >= 2 else "an innocent was refused as poison"
        if isinstance(fault, Expired):
            return "" if now >= asked.deadline - 1.0 else "expired too early"
        if isinstance(fault, EngineLost):
            allowed = "the limit" in fault.why or is_poison(asked) or now >= asked.deadline - 1.0
            allowed |= self.journal_off and "record of this answer is gone" in fault.why
            return "" if allowed else "given up"
        if isinstance(fault, BadRequest) and fault.code == "stream_not_found":
            return "" if self.journal_off else "its stream is gone"
        return "no rule allows this"

    # the end

    def quiet(self) -> None:
        """Nothing runs: nothing may be held."""
        for worker in self._ground.living():
            held = self._held(worker)
            for what, value in held.items():
                if value:
                    self.violated(f"I6: {worker.who} still holds {what}: {value}")
        for process in self._ground.host.processes.values():
            if process.alive and process.replica is not None and process.replica.running():
                self.violated(f"I6: {process.name} still runs {process.replica.running()} streams")

    def _held(self, worker: Hand) -> dict[str, object]:
        gate, moving = worker.wiring.gate, worker.moving
        return {
            "places": gate.running,
            "waiting": len(gate.waiting),
            "queue": (gate.queue.requests, gate.queue.work, gate.queue.bytes) if gate.queue.requests else (),
            "room": gate.room.used() if any(gate.room.used()) else (),
            "shares": [one for one in gate.accounts if gate.shares.of(one).slots or gate.shares.of(one).tokens],
            "reservations": {one.limits.tenant: one.reserved for one in gate.accounts.values() if one.reserved},
            "answers owed": list(worker.wiring.lines.owed),
            "records": list(worker.journal.live),
            "permits": {name: one for name, one in moving.turns.lane.reading.items() if one},
            "cases": list(moving.quarantine.cases),
            "followers": dict(worker.streams.followed),
            "claims": [name for name, who in self._ground.shelves.claims.items() if who is worker.shelf],
            "streams": sum(one.line.in_flight for one in worker.wiring.lines.known().values()),
        }


def same(name: str, asked: Generation) -> bool:
    """Whether this is one of the attempts of a client to have this answered."""
    return name.partition("x")[0] == asked.id
