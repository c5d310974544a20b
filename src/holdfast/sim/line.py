"""The line to a simulated replica: the Line port over two lanes, or directly where a story wants exact times.

It fences as the real one does: an attempt that ends for any reason is forgotten by number, numbers are never used twice, so
what arrives late for it has nowhere to go.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextvars import copy_context
from typing import Protocol

from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.ports import Clock, Stream
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.sim.lives import nobody
from holdfast.sim.network import Lane, Way

PROBE_S = 2.0  # how long a probe waits for its answer
RELEASE = Release(model="sim", engine="scripted", digest="0" * 64, exactness=Exactness.EXACT)


class Item(Struct):
    """One stream's share of a frame. `kind` tells what `why` is: lost, refused, bad; empty for tokens."""

    number: int
    ids: list[int]
    finish: Finish | None = None
    kind: str = ""
    why: str = ""


class Frame(Struct):
    """What a replica sends once a step for all streams, or in answer to a ping."""

    items: list[Item]
    load: Load | None = None  # a pong
    gone: str = ""  # the connection ends
    crash: str = ""


class Down(Struct):
    """What a gateway sends."""

    submit: Generation | None = None
    number: int = 0
    abort: bool = False
    ping: bool = False


class Peer(Protocol):
    """The replica's end of a connection."""

    def heed(self, line: "SimLine", said: Down) -> None: ...

    def hung_up(self, line: "SimLine") -> None: ...


class SimLine:
    """One connection. With a `way`, frames travel; without one they are there at once."""

    def __init__(self, peer: Peer, name: str, boot: str, load: Load, clock: Clock, *, way: Way | None = None) -> None:
        self.on_gap: Callable[[float], None] | None = None
        self._peer, self._name, self._boot, self._clock = peer, name, boot, clock
        self._gone = self.crash = ""
        self._attempts: dict[int, _Attempt] = {}
        self._numbers = 0
        self._last_frame_at = clock.now()
        self._pinged_at: float | None = None
        self._expecting_since = 0.0
        self._load = load  # as the Welcome says it
        self._probes: list[asyncio.Future[None]] = []
        self.dropped_late = 0
        self.who = ""  # the dialler's name
        self.release = RELEASE  # what the Welcome says
        self.on_submit: Callable[[Generation], None] = lambda generation: (
            None
        )  # called with every attempt that begins here
        self._up = Lane(way, copy_context(), self._arrived) if way else None
        self._down = Lane(way, nobody(), self._heeded) if way else None

    # the port

    @property
    def gone(self) -> str:
        return self._gone

    @property
    def boot(self) -> str:
        return self._boot

    @property
    def in_flight(self) -> int:
        return len(self._attempts)

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
        return self.release

    def streams(self) -> Iterable[Stream]:
        return [attempt.seen for attempt in self._attempts.values()]

    def check(self) -> None:
        """See the port. Here sockets close in the moment of death."""

    def ping(self) -> None:
        if self._pinged_at is None and not self._gone:
            self._expect()
            self._pinged_at = self._clock.now()
            self._say(Down(ping=True))

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        for attempt in list(self._attempts.values()):
            if not generation or attempt.seen.generation == generation:
                self._forget(attempt)
                attempt.clear()
                fault = EngineLost(why, planned=planned)
                fault.fenced = True
                attempt.put(fault)

    async def close(self) -> None:
        heard = self._down is None or not self._down.black
        self._end("closed")
        if heard:
            self._peer.hung_up(self)

    async def probe(self) -> Probe:
        if self._gone:
            raise EngineLost(self._gone)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probes.append(answer)
        self._say(Down(ping=True))
        timer = asyncio.ensure_future(self._clock.sleep(PROBE_S))
        try:
            await asyncio.wait({answer, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            if answer in self._probes:
                self._probes.remove(answer)
        if not answer.done() or self._gone:
            raise EngineLost(self._gone or f"{self._name} did not answer a ping in {PROBE_S:g} s")
        return Probe(ready=not self._load.draining, load=self._load)

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.on_submit(generation)
        if self._gone:
            raise EngineRefused(f"{self._name}: {self._gone}")
        self._expect()
        self._numbers += 1
        read = len(generation.prompt_ids) + len(generation.delivered_ids)
        attempt = _Attempt(self._numbers, Stream(generation.id, self._clock.now(), read))
        self._attempts[attempt.number] = attempt
        self._say(Down(submit=generation, number=attempt.number))
        try:
            while True:
                for one in await attempt.take():
                    if isinstance(one, Fault):
                        raise one
                    yield one
                    if one.finish is not None:
                        return
        finally:
            self._forget(attempt)

    # the replica's side

    def send(self, frame: Frame) -> None:
        """Send a frame to the gateway."""
        if self._up is None:
            self._arrived(frame)
        else:
            self._up.send(frame)

    def cut(self, why: str, crash: str = "") -> None:
        """The connection is gone; `crash` is what the replica left in its black box."""
        self.send(Frame([], gone=why, crash=crash))

    # inside

    def _say(self, said: Down) -> None:
        if self._down is None:
            self._peer.heed(self, said)
        else:
            self._down.send(said)

    def _heeded(self, said: Down) -> None:
        self._peer.heed(self, said)

    def _expect(self) -> None:
        if not self._attempts and self._pinged_at is None:
            self._expecting_since = self._clock.now()

    def _forget(self, attempt: "_Attempt") -> None:
        if self._attempts.pop(attempt.number, None) is not None:
            self._say(Down(number=attempt.number, abort=True))

    def _arrived(self, frame: Frame) -> None:
        if self._gone:
            return
        if frame.gone:
            self._end(frame.gone, frame.crash)
            return
        now = self._clock.now()
        if self.on_gap is not None and (self._attempts or self._pinged_at is not None):
            self.on_gap(now - max(self._last_frame_at, self._expecting_since))
        self._last_frame_at = now
        if frame.load is not None:
            self._load, self._pinged_at = frame.load, None
            for probe in self._probes:
                if not probe.done():
                    probe.set_result(None)
            self._probes.clear()
        for item in frame.items:
            self._take(item, now)

    def _take(self, item: Item, now: float) -> None:
        attempt = self._attempts.get(item.number)
        if attempt is None:
            self.dropped_late += len(item.ids)
            return
        if item.finish is not None or item.kind:
            del self._attempts[item.number]
        if not (item.kind or item.ids or item.finish):
            attempt.seen.last_token_at = now
            attempt.sign()
        elif not item.kind:
            attempt.seen.last_token_at = now
            attempt.seen.tokens += len(item.ids)
            attempt.put(Chunk(item.ids, item.finish))
        elif item.kind == "bad":
            attempt.put(BadRequest(item.why, "prompt_ids"))
        elif item.kind == "refused" and attempt.seen.tokens == 0:
            attempt.put(EngineRefused(item.why))
        else:
            attempt.put(EngineLost(item.why))

    def _end(self, why: str, crash: str = "") -> None:
        self._gone, self.crash = self._gone or why, self.crash or crash
        for attempt in self._attempts.values():
            attempt.put(EngineLost(why, died=True, crash=crash))
        self._attempts.clear()
        self._pinged_at = None
        for probe in self._probes:
            if not probe.done():
                probe.set_result(None)
        for lane in (self._up, self._down):
            if lane is not None:
                lane.close()


class _Attempt:
    """One stream's mailbox."""

    def __init__(self, number: int, seen: Stream) -> None:
        self.number, self.seen = number, seen
        self._box: list[Chunk | Fault] = []
        self._bell: asyncio.Future[None] | None = None

    def put(self, one: Chunk | Fault) -> None:
        """What comes next; steps that nobody has fetched yet are merged, as on the real line."""
        if self._box and isinstance(self._box[0], Chunk) and self._box[0].waiting:
            self._box.clear()
        last = self._box[-1] if self._box else None
        if isinstance(one, Chunk) and isinstance(last, Chunk) and last.finish is None:
            last.ids, last.finish = last.ids + one.ids, one.finish
        else:
            self._box.append(one)
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def sign(self) -> None:
        """What was delivered is made again, as the real line tells of it."""
        if not self._box:
            self.put(Chunk([], waiting="what was delivered is made again"))

    def clear(self) -> None:
        """Fenced: what nobody has fetched yet will be made again elsewhere."""
        self._box.clear()

    async def take(self) -> list[Chunk | Fault]:
        if not self._box:
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell
        box, self._box = self._box, []
        return box
