"""A replica and the line to it, in virtual time: the Line port with faults on a lever.

It makes one token per stream and step, as a pure function of prompt, seed and place, so that every lost, doubled or
reordered token shows. What it can suffer is what real ones were seen to suffer: killed, frozen, slow, refusing, cut off in
mid-stream, ending without a finish, one stream stuck, answers of the dead arriving late.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock, Stream
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation

PROBE_S = 2.0  # how long a probe waits for its answer
RELEASE = Release(model="sim", engine="scripted", digest="00", exactness=Exactness.EXACT)


def token(prompt_ids: list[int], seed: int, place: int, vocabulary: int = 50_000) -> int:
    """The token at absolute `place` of the answer to this prompt and seed, the same on every replica."""
    head = b"%d:%d:" % (seed, place) + b",".join(b"%d" % one for one in prompt_ids)
    return int.from_bytes(blake2b(head, digest_size=4).digest(), "little") % vocabulary


def answer(prompt_ids: list[int], seed: int, count: int) -> list[int]:
    """The whole undisturbed answer."""
    start = len(prompt_ids)
    return [token(prompt_ids, seed, start + index) for index in range(count)]


@dataclass
class SimReplica:
    """One replica process: what it does is set here, while a story runs. `step_s` is its cadence in seconds."""

    name: str
    clock: Clock
    step_s: float = 0.02
    slots: int = 64
    boots: int = 0
    alive: bool = True
    frozen: bool = False
    draining: bool = False
    refusing: str = ""
    stuck: set[str] = field(default_factory=set)  # generations that get no more tokens though the replica moves
    cut_after: int | None = None  # ends each stream without a finish after so many tokens
    steps: int = 0
    lines: list["SimLine"] = field(default_factory=list)

    @property
    def boot(self) -> str:
        return f"{self.name}/{self.boots}"

    def kill(self, crash: str = "") -> None:
        """SIGKILL: the kernel closes its sockets at once. With `crash` it died of its own fault and its black box says so."""
        self.alive = False
        for line in self.lines:
            line.cut("connection reset by peer", crash)
        self.lines.clear()

    def start(self) -> None:
        """A fresh process under the same name."""
        self.boots += 1
        self.alive, self.frozen, self.draining, self.refusing, self.cut_after = True, False, False, "", None

    def dial(self) -> "SimLine":
        """What a connect would give. Raises OSError where nobody listens."""
        if not self.alive:
            raise ConnectionRefusedError(f"{self.name} does not listen")
        line = SimLine(self, self.clock)
        self.lines.append(line)
        return line

    async def run(self) -> None:
        """Step until cancelled: every live stream of every line gets its next token."""
        while True:
            await self.clock.sleep(self.step_s)
            if self.alive and not self.frozen:
                self.steps += 1
                for line in self.lines:
                    line.turn()


class SimLine:
    """The Line port. Frames it would send while frozen are held and arrive after the thaw, as a socket's buffer would."""

    def __init__(self, replica: SimReplica, clock: Clock) -> None:
        self.on_gap: Callable[[float], None] | None = None
        self._replica, self._clock = replica, clock
        self._boot = replica.boot
        self._gone = self.crash = ""
        self._streams: dict[str, _Attempt] = {}
        self._last_frame_at = clock.now()
        self._pinged_at: float | None = None
        self._load = Load(slots=replica.slots)
        self.dropped_late = 0

    @property
    def gone(self) -> str:
        return self._gone

    @property
    def boot(self) -> str:
        return self._boot

    @property
    def in_flight(self) -> int:
        return len(self._streams)

    @property
    def last_frame_at(self) -> float:
        return self._last_frame_at

    @property
    def oldest_ping_at(self) -> float | None:
        return self._pinged_at

    @property
    def last_load(self) -> Load:
        return self._load

    def describe(self) -> Release | None:
        return RELEASE

    def streams(self) -> Iterable[Stream]:
        return [attempt.seen for attempt in self._streams.values()]

    def ping(self) -> None:
        if self._pinged_at is None:
            self._pinged_at = self._clock.now()

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        for name in [generation] if generation else list(self._streams):
            self._end(name, EngineLost(why, planned=planned))

    def cut(self, why: str, crash: str = "") -> None:
        """The connection is gone; `crash` is what the replica left in its black box."""
        self._gone, self.crash = self._gone or why, self.crash or crash
        for name in list(self._streams):
            self._end(name, EngineLost(why, died=True, crash=crash))

    def _end(self, name: str, fault: EngineLost) -> None:
        attempt = self._streams.pop(name, None)
        if attempt is not None:
            attempt.put(fault)

    async def close(self) -> None:
        self.cut("closed")
        if self in self._replica.lines:
            self._replica.lines.remove(self)

    async def probe(self) -> Probe:
        if self._replica.frozen:
            await self._clock.sleep(PROBE_S)
        if self._gone or self._replica.frozen:
            raise EngineLost(self._gone or f"{self._replica.name} did not answer a ping in {PROBE_S:g} s")
        return Probe(ready=not self._replica.draining, load=self._load)

    def turn(self) -> None:
        """One step of the replica, as this line sees it."""
        now, replica = self._clock.now(), self._replica
        expected = bool(self._streams) or self._pinged_at is not None
        if not expected:
            return
        if self.on_gap is not None:
            self.on_gap(now - max(self._last_frame_at, self._since()))
        self._last_frame_at, self._pinged_at = now, None
        self._load = Load(
            step=replica.steps, running=len(self._streams), slots=replica.slots, draining=replica.draining
        )
        for name, attempt in list(self._streams.items()):
            if name not in replica.stuck and not attempt.turn(now, replica.cut_after):
                del self._streams[name]

    def _since(self) -> float:
        asked = [attempt.seen.submitted_at for attempt in self._streams.values()]
        if self._pinged_at is not None:
            asked.append(self._pinged_at)
        return min(asked)

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        replica = self._replica
        if self._gone:
            raise EngineRefused(f"{replica.name}: {self._gone}")
        if replica.refusing or replica.draining:
            raise EngineRefused(replica.refusing or f"{replica.name} is draining")
        attempt = _Attempt(generation, Stream(generation.id, self._clock.now(), len(generation.prompt_ids)))
        self._streams[generation.id] = attempt
        try:
            while True:
                for one in await attempt.take():
                    if isinstance(one, Exception):
                        raise one
                    yield one
                    if one.finish is not None:
                        return
        finally:
            if self._streams.get(generation.id) is attempt:
                del self._streams[generation.id]


class _Attempt:
    """One stream's mailbox and its place in the script."""

    def __init__(self, generation: Generation, seen: Stream) -> None:
        self.generation, self.seen = generation, seen
        self._made = len(generation.delivered_ids)
        self._box: list[Chunk | Exception] = []
        self._bell: asyncio.Future[None] | None = None

    def put(self, one: Chunk | Exception) -> None:
        self._box.append(one)
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def take(self) -> list[Chunk | Exception]:
        if not self._box:
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell
        box, self._box = self._box, []
        return box

    def turn(self, now: float, cut_after: int | None) -> bool:
        """One more token. Returns whether the stream goes on."""
        asked = self.generation
        if cut_after is not None and self.seen.tokens >= cut_after:
            self.put(EngineLost("the stream ended without a finish"))
            return False
        one = token(asked.prompt_ids, asked.seed, len(asked.prompt_ids) + self._made)
        self._made += 1
        self.seen.tokens += 1
        self.seen.last_token_at = now
        done = self._made >= asked.max_tokens
        self.put(Chunk([one], Finish.LENGTH if done else None))
        return not done
