"""The embedded engine as a gateway sees it: all streams between one worker and one replica on one connection.

One object stands for one boot of one replica. When its connection is gone, every stream fails with EngineLost and the
object is spent: whoever keeps the replica's connections dials again.

Fencing: a stream that ends for any reason (finished, aborted, failed by a watcher) is forgotten by number, and numbers are
never used twice on a connection. Tokens that arrive late for it have nowhere to go, so an answer that was moved can't get
a token from the replica it has left.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol

from holdfast.domain.address import TcpAddress, UnixAddress, parse_address
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.ports import Clock, Stream
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Generation
from holdfast.domain.wire import (
    VERSION,
    Abort,
    Downward,
    Failed,
    Hello,
    Item,
    Ping,
    Pong,
    Submit,
    Tokens,
    Welcome,
)
from holdfast.engine.link import Link
from holdfast.engine.within import within

SIGN_OF_LIFE_S = 1.0  # whoever waits for an answer that is made again is told so this often
AGAIN = "what was delivered is made again"


class Vitals(Protocol):
    """What is known of the replica's process without asking it; host/vitals.py is one."""

    def dying(self) -> bool: ...

    def close(self) -> None: ...


class _Attempt:
    """One stream of the connection: what has arrived and not been fetched, and who waits for it."""

    __slots__ = ("arrived", "fault", "number", "seen", "told_at", "waiter")

    def __init__(self, number: int, seen: Stream) -> None:
        self.number = number
        self.seen = seen
        self.arrived: Chunk | None = None
        self.told_at = float("-inf")
        self.fault: Fault | None = None
        self.waiter: asyncio.Future[None] | None = None

    def take(self, item: Item, now: float) -> None:
        """Merge a step's share into what waits to be fetched."""
        if item.ids:
            self.seen.last_token_at = now
            self.seen.tokens += len(item.ids)
        elif item.finish is None:
            self.stir(now)
            return
        arrived = self.arrived
        if arrived is None or arrived.waiting:
            self.arrived = Chunk(item.ids, item.finish, item.logprobs, item.cached_tokens)
        else:
            arrived.ids.extend(item.ids)
            arrived.finish = item.finish
            arrived.cached_tokens += item.cached_tokens
            if item.logprobs:
                arrived.logprobs = [*(arrived.logprobs or ()), *item.logprobs]
        self.wake()

    def stir(self, now: float) -> None:
        """It makes again what was delivered: that is no silence, and now and then a sign of life."""
        self.seen.last_token_at = now
        if self.arrived is None and now - self.told_at >= SIGN_OF_LIFE_S:
            self.told_at = now
            self.arrived = Chunk([], waiting=AGAIN)
            self.wake()

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class EmbeddedEngine:
    """Implements the Line port. `welcome` is how the replica introduced itself: release, boot, pid, context length.

    `closed` is set once the connection is gone; `gone` then says why.
    """

    def __init__(
        self,
        link: Link,
        welcome: Welcome,
        clock: Clock,
        probe_timeout_s: float = 2.0,
        black_box: Callable[[], str] = lambda: "",
    ) -> None:
        self.welcome = welcome
        self.crash = ""
        self._black_box = black_box
        self._vitals: Vitals | None = None
        self.last_load: Load = welcome.load
        self.last_frame_at = clock.now()
        self.closed = asyncio.Event()
        self.on_gap: Callable[[float], None] | None = None
        self._link = link
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._probe_timeout_s = probe_timeout_s
        self._attempts: dict[int, _Attempt] = {}
        self._number = 0
        self._expecting_since = 0.0  # something has been owed without a break since then
        self._nonce = 0
        self._pinged: tuple[int, float] | None = None  # nonce and moment of the ping that is unanswered
        self._probes: dict[int, asyncio.Future[Load]] = {}
        link.on_frame = self._on_frame
        link.on_end = self._on_end

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port. Steps that arrive while the caller is busy are merged into one chunk."""
        attempt = self._submit(generation)
        try:
            while True:
                chunk, attempt.arrived = attempt.arrived, None
                if chunk is not None:
                    yield chunk
                    if chunk.finish is not None:
                        return
                elif attempt.fault is not None:
                    raise attempt.fault
                else:
                    attempt.waiter = self._loop.create_future()
                    await attempt.waiter
        finally:
            self._forget(attempt)

    async def probe(self) -> Probe:
        """Ask for a Pong, which a replica sends between two steps."""
        if self._link.ended:
            raise EngineLost(self._link.ended)
        self._nonce += 1
        nonce = self._nonce
        answer: asyncio.Future[Load] = self._loop.create_future()
        self._probes[nonce] = answer
        self._link.send(Ping(nonce))
        try:
            await within(self._clock, self._probe_timeout_s, answer)
        finally:
            self._probes.pop(nonce, None)
        if not answer.done():
            answer.cancel()
            raise EngineLost(f"{self._link.address} did not answer a ping in {self._probe_timeout_s:g} s")
        load = answer.result()
        return Probe(not load.draining, load, "draining" if load.draining else "")

    def describe(self) -> Release | None:
        return self.welcome.release

    async def close(self) -> None:
        """Hang up: the replica aborts whatever was under way, and its streams here fail with EngineLost."""
        self._link.hang_up(f"this gateway closed its connection to {self._link.address}")

    @property
    def gone(self) -> str:
        """Why the connection ended; empty while it lives."""
        return self._link.ended

    @property
    def boot(self) -> str:
        return self.welcome.boot

    @property
    def in_flight(self) -> int:
        """How many streams wait for the replica to say more."""
        return len(self._attempts)

    @property
    def oldest_ping_at(self) -> float | None:
        """When the ping that is still unanswered was sent."""
        return None if self._pinged is None else self._pinged[1]

    def streams(self) -> Iterable[Stream]:
        """The streams under way, oldest first."""
        return [attempt.seen for attempt in self._attempts.values()]

    def ping(self) -> None:
        """See the port. While one ping is unanswered a second would tell nothing new, and is not sent."""
        if self._link.ended or self._pinged is not None:
            return
        now = self._clock.now()
        self._expect(now)
        self._nonce += 1
        self._pinged = self._nonce, now
        self._link.send(Ping(self._nonce))

    def fail(self, why: str, generation: str = "", planned: bool = False) -> None:
        """See the port. What had arrived and was not fetched yet is dropped too: it will be made again elsewhere."""
        for attempt in list(self._attempts.values()):
            if not generation or attempt.seen.generation == generation:
                self._forget(attempt)
                attempt.arrived = None
                attempt.fault = EngineLost(why, planned=planned)
                attempt.fault.fenced = True
                attempt.wake()

    def _submit(self, generation: Generation) -> _Attempt:
        self._link.check_writable()
        now = self._clock.now()
        self._expect(now)
        self._number += 1
        prompt_tokens = len(generation.prompt_ids) + len(generation.delivered_ids)
        attempt = _Attempt(self._number, Stream(generation.id, now, prompt_tokens))
        self._attempts[attempt.number] = attempt
        self._link.send(
            Submit(
                attempt.number,
                generation.prompt_ids,
                generation.delivered_ids,
                generation.sampling,
                generation.max_tokens,
                generation.seed,
                generation.stop_ids,
                generation.whole,
            )
        )
        return attempt

    def _expect(self, now: float) -> None:
        """Something will be owed from now on; call it before taking it down."""
        if not self._attempts and self._pinged is None:
            self._expecting_since = now

    def _forget(self, attempt: _Attempt) -> None:
        """The reader is gone: late tokens have nowhere to go, and the replica may stop."""
        if self._attempts.pop(attempt.number, None) is not None:
            self._link.send(Abort(attempt.number))

    def _on_frame(self, frame: Downward) -> None:
        now = self._clock.now()
        if self.on_gap is not None and (self._attempts or self._pinged is not None):
            self.on_gap(now - max(self.last_frame_at, self._expecting_since))
        self.last_frame_at = now
        if type(frame) is Tokens:
            self._on_tokens(frame, now)
        elif isinstance(frame, Pong):
            self._on_pong(frame)
        elif isinstance(frame, Failed):
            self._on_failed(frame)
        else:
            self._link.cut(f"{self._link.address} welcomed us twice")

    def _on_tokens(self, frame: Tokens, now: float) -> None:
        attempts = self._attempts
        for item in frame.items:
            attempt = attempts.get(item.stream)
            if attempt is None:
                continue  # aborted or fenced, and the replica did not know yet
            if item.finish is not None:
                del attempts[item.stream]
            attempt.take(item, now)

    def _on_pong(self, frame: Pong) -> None:
        self.last_load = frame.load
        probe = self._probes.get(frame.nonce)
        if probe is not None and not probe.done():
            probe.set_result(frame.load)
        if self._pinged is not None and self._pinged[0] <= frame.nonce:
            self._pinged = None

    def _on_failed(self, frame: Failed) -> None:
        attempt = self._attempts.pop(frame.stream, None)
        if attempt is None:
            return
        if frame.kind == "bad":
            attempt.fault = BadRequest(frame.why, frame.param, frame.code)
        elif frame.kind == "refused" and attempt.seen.tokens == 0:
            attempt.fault = EngineRefused(frame.why)
        else:
            attempt.fault = EngineLost(frame.why)
            attempt.fault.unrepeatable = frame.kind == "unrepeatable"
        attempt.wake()

    def watch_over(self, vitals: Vitals) -> None:
        """Let `check` ask these. They are closed with the connection."""
        self._vitals = vitals

    def check(self) -> None:
        """See the port."""
        if self._vitals is not None and self._vitals.dying():
            self._link.cut(f"the process at {self._link.address} is dying")

    def _on_end(self, why: str) -> None:
        vitals, self._vitals = self._vitals, None
        self.crash = self._black_box()
        died = vitals is None or vitals.dying() or bool(self.crash)  # else only the connection broke
        if vitals is not None:
            vitals.close()
        for attempt in self._attempts.values():
            attempt.fault = EngineLost(why, died=died, crash=self.crash)
            attempt.wake()
        self._attempts.clear()
        self._pinged = None
        for probe in self._probes.values():
            if not probe.done():
                probe.set_exception(EngineLost(why))
        self.closed.set()


async def dial(
    address: str,
    clock: Clock,
    timeout_s: float,
    who: str = "gateway",
    black_box: Callable[[], str] = lambda: "",
) -> EmbeddedEngine:
    """Connect to a replica and shake hands; `who` is what its log calls us, `black_box` reads what it left when it died.

    `timeout_s` is for the handshake, and later for each probe.

    Raises:
        EngineLost: nobody answers there, it says nothing in time, or it speaks another version of the protocol.
        ValueError: the address is neither unix:/path nor host:port.
    """
    place = parse_address(address)
    handshake = asyncio.ensure_future(_shake_hands(place, (clock, timeout_s), who, black_box))
    try:
        await within(clock, timeout_s, handshake)
        if not handshake.done():
            raise EngineLost(f"{address} did not say Welcome in {timeout_s:g} s")
        return handshake.result()
    except OSError as error:
        raise EngineLost(f"nobody answers at {address}: {error.strerror or error}") from error
    finally:
        handshake.cancel()


async def _shake_hands(
    place: UnixAddress | TcpAddress, time: tuple[Clock, float], who: str, black_box: Callable[[], str]
) -> EmbeddedEngine:
    """Connect, say Hello and wait for the Welcome; a link that turns out useless is cut."""
    loop = asyncio.get_running_loop()
    if isinstance(place, UnixAddress):
        _, link = await loop.create_unix_connection(lambda: Link(str(place)), place.path)
    else:
        _, link = await loop.create_connection(lambda: Link(str(place)), place.host, place.port)
    answer: asyncio.Future[EmbeddedEngine] = loop.create_future()

    def on_frame(frame: Downward) -> None:
        if not isinstance(frame, Welcome):
            link.cut(f"{place} said {type(frame).__name__} before Welcome")
        elif frame.version != VERSION:
            link.cut(f"{place} speaks version {frame.version} of the wire protocol, we speak {VERSION}")
        else:  # made here and not later, so that no frame behind the Welcome is missed
            answer.set_result(EmbeddedEngine(link, frame, *time, black_box))

    def on_end(why: str) -> None:
        if not answer.done():
            answer.set_exception(EngineLost(why))

    link.on_frame, link.on_end = on_frame, on_end
    link.send(Hello(VERSION, who))
    try:
        return await answer
    finally:
        if not answer.done() or answer.cancelled():
            link.cut("the handshake was given up")
