"""A replica in virtual time, with everything that real ones were seen to suffer on levers.

It makes one token per stream and step, as a pure function of prompt, seed and place, so that every lost, doubled or reordered
token shows. It steps only while somebody waits for something, always at multiples of its cadence: an idle one costs nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from holdfast.domain.ports import Clock
from holdfast.domain.release import Hold, Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, Generation
from holdfast.sim.line import RELEASE, Down, Frame, Item, SimLine
from holdfast.sim.lives import nobody
from holdfast.sim.network import Way
from holdfast.sim.scripted import answer_key, token_at

VOCABULARY = tuple(range(16, 8192))
POISON_FROM = 7000  # prompt ids from here on are those that kill
WRONG = 1 << 20  # added to every token of a replica that computes wrongly


def answer(prompt_ids: list[int], seed: int, count: int) -> list[int]:
    """The first `count` tokens of the undisturbed answer."""
    key = answer_key(prompt_ids, seed)
    return [token_at(key, place, VOCABULARY) for place in range(count)]


def own_seed(release: Release, generation: Generation) -> int:
    """Engines of one kind draw alike, and otherwise than those of another one; what is greedy is the same for all of them."""
    if generation.sampling.temperature == 0 or release.digest == RELEASE.digest:
        return generation.seed
    return generation.seed ^ crc32(release.digest.encode())


def length(generation: Generation) -> tuple[int, Finish]:
    """How long the undisturbed answer is, and why it ends: answers that were asked with stop ids may end by themselves."""
    own = 1 + answer_key(generation.prompt_ids, generation.seed) % 211
    if generation.stop_ids and own < generation.max_tokens:
        return own, Finish.STOP
    return generation.max_tokens, Finish.LENGTH


@dataclass
class _Stream:
    """One attempt inside the replica."""

    line: SimLine
    number: int
    asked: Generation
    key: int
    place: int  # of the next token in the answer
    unread: int  # prompt tokens still to be read
    made: int = 0
    count: int = 0
    finish: Finish = Finish.LENGTH
    since: float = 0.0
    again: int = 0  # delivered tokens that it has to make once more, as an engine does that can't lead a grammar


@dataclass
class SimReplica:
    """One replica process: what it does is set here, while a story runs. `step_s` is its cadence in seconds.

    `poison`: prompt token id -> (what the black box will say, after how many tokens of the answer). `on_death` is called when
    it dies of its own fault. `way`: what lies between a dialler, by name, and this replica.
    """

    name: str
    clock: Clock
    step_s: float = 0.02
    slots: int = 64
    boots: int = 0
    queue_max: int = 128
    chunk_tokens: int = 0  # prompt tokens read in one step by one stream; 0 reads any prompt at once
    alive: bool = True
    draining: bool = False
    refusing: str = ""
    stuck: set[str] = field(default_factory=set)  # generations that get no more tokens though the replica moves
    cut_after: int | None = None  # ends each stream without a finish after so many tokens
    lying: bool = False  # answers pings, and makes no step
    denying: bool = False  # says that nothing runs, whatever does
    wrong: bool = False  # computes wrong tokens
    parrot: int | None = None  # gives this token for ever
    poison: dict[int, tuple[str, int]] = field(default_factory=dict)
    way: Callable[[str], Way | None] = lambda who: None
    line_of: type[SimLine] = SimLine  # another kind, for planted bugs
    release: Release = RELEASE
    on_death: Callable[[str], None] = lambda crash: None
    pace: Callable[["SimReplica"], float] | None = None  # seconds of the step that begins now; None: always `step_s`
    steps: int = 0
    paced_steps: int = 0  # those that only made tokens
    paced_s: float = 0.0
    lines: list[SimLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._frozen = False
        self.killer: Generation | None = None  # the request that it died of
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._pings: list[SimLine] = []
        self._unheeded: list[tuple[SimLine, Down]] = []
        self._due: asyncio.TimerHandle | None = None
        self._context = nobody()
        self._began = 0.0  # the step under way

    @property
    def boot(self) -> str:
        return f"{self.name}/{self.boots}"

    @property
    def frozen(self) -> bool:
        """SIGSTOP: what is sent to it waits in its sockets."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        if not frozen:
            unheeded, self._unheeded = self._unheeded, []
            for line, said in unheeded:
                self.heed(line, said)
            self._expect_step()

    def kill(self, crash: str = "", why: str = "connection reset by peer") -> None:
        """SIGKILL: the kernel closes its sockets at once. With `crash` it died of its own fault and its black box says so."""
        self.alive = False
        for line in self.lines:
            line.cut(why, crash)
        self.lines.clear()
        self._streams.clear()
        self._pings.clear()
        self._unheeded.clear()

    def start(self) -> None:
        """A fresh process under the same name."""
        self.boots += 1
        self.alive, self._frozen, self.draining, self.refusing, self.cut_after = True, False, False, "", None
        self.lying = self.denying = self.wrong = False
        self.parrot = None
        self.steps = self.paced_steps = 0
        self.paced_s = 0.0

    def reset(self, line: SimLine, why: str) -> None:
        """End one connection, as a network that fails does, or a frame that can't be read."""
        line.cut(why)
        self.hung_up(line)

    def dial(self, who: str = "") -> SimLine:
        """What a connect would give. Raises OSError where nobody listens."""
        if not self.alive:
            raise ConnectionRefusedError(f"{self.name} does not listen")
        line = self.line_of(self, self.name, self.boot, self.load(), self.clock, way=self.way(who))
        line.who, line.release = who, self.release
        self.lines.append(line)
        return line

    async def run(self) -> None:
        """Steps come by themselves; this only waits to be cancelled."""
        await asyncio.get_running_loop().create_future()

    def running(self) -> int:
        """Streams that it works on or keeps waiting."""
        return len(self._streams)

    def reading(self) -> int:
        """Prompt tokens that the next step reads."""
        return sum(min(one.unread, self.chunk_tokens) for one in self._streams.values() if not one.made)

    def heed(self, line: SimLine, said: Down) -> None:
        """Take what a gateway has sent."""
        if not self.alive or line not in self.lines:
            return
        if self._frozen:
            self._unheeded.append((line, said))
            return
        key = id(line), said.number
        if said.submit is not None:
            self._submit(line, said.number, said.submit)
        elif said.abort:
            self._streams.pop(key, None)
        elif said.ping:
            self._pings.append(line)
        self._expect_step()

    def hung_up(self, line: SimLine) -> None:
        """A connection is gone: whatever it asked for is aborted."""
        if line in self.lines:
            self.lines.remove(line)
        self._streams = {key: one for key, one in self._streams.items() if one.line is not line}
        self._pings = [one for one in self._pings if one is not line]

    def _submit(self, line: SimLine, number: int, asked: Generation) -> None:
        why = self.refusing or (f"{self.name} is draining" if self.draining else "")
        if not why and len(self._streams) >= self.slots + self.queue_max:
            why = f"{self.name}'s queue is full"
        kind = "refused" if why else "" if asked.prompt_ids else "bad"
        if kind:
            line.send(Frame([Item(number, [], kind=kind, why=why or "the prompt is empty")]))
            return
        count, finish = length(asked)
        made = len(asked.delivered_ids)
        unread = len(asked.prompt_ids) + made if self.chunk_tokens else 0
        key = answer_key(asked.prompt_ids, own_seed(self.release, asked))
        self._streams[id(line), number] = _Stream(
            line, number, asked, key, made, unread, 0, count, finish, self.clock.now()
        )
        if asked.sampling.grammar and self.release.grammar is Hold.FRESH:
            self._streams[id(line), number].again = made

    def _expect_step(self) -> None:
        if self._due is None and (self._streams or self._pings) and self.alive and not self._frozen:
            self._began = now = self.clock.now()
            at = (int(now / self.step_s + 1e-6) + 1) * self.step_s if self.pace is None else now + self.pace(self)
            self._due = asyncio.get_running_loop().call_at(round(at, 9), self._step, context=self._context)

    def _step(self) -> None:
        """One step: every running stream gets its next token, every ping its answer."""
        self._due = None
        if not self.alive or self._frozen:
            return
        if self._streams and not self.lying:
            self.steps += 1
            if all(stream.unread <= self.chunk_tokens for stream in self._streams.values()):
                self.paced_steps, self.paced_s = self.paced_steps + 1, self.paced_s + self.step_s
        frames: dict[int, tuple[SimLine, Frame]] = {}
        running = list(self._streams.items())[: self.slots]
        if self.pace is not None:  # what came during a step takes part in the next
            running = [(key, one) for key, one in running if one.since <= self._began]
        for key, stream in [] if self.lying else running:
            crash = self._poisoned(stream)
            if crash is not None:
                self.killer = stream.asked
                self.kill(crash)
                self.on_death(crash)
                return
            item = self._advance(stream)
            if item is not None:
                frames.setdefault(id(stream.line), (stream.line, Frame([])))[1].items.append(item)
                if item.finish is not None or item.kind:
                    self._streams.pop(key)
        load = self.load()
        for line in self._pings:
            frames.setdefault(id(line), (line, Frame([])))[1].load = load
        self._pings.clear()
        for line, frame in frames.values():
            line.send(frame)
        self._expect_step()

    def load(self) -> Load:
        """What it says of itself."""
        here = 0 if self.denying else len(self._streams)
        return Load(
            step=self.steps,
            running=min(here, self.slots),
            queued=max(0, here - self.slots),
            slots=self.slots,
            draining=self.draining,
            paced_steps=self.paced_steps,
            paced_s=self.paced_s,
        )

    def _poisoned(self, stream: _Stream) -> str | None:
        for one in self.poison:
            if one in stream.asked.prompt_ids and stream.place >= self.poison[one][1]:
                return self.poison[one][0]
        return None

    def _advance(self, stream: _Stream) -> Item | None:
        if stream.asked.id in self.stuck:
            return None
        if self.cut_after is not None and stream.made >= self.cut_after:
            return Item(stream.number, [], kind="lost", why="the stream ended without a finish")
        if stream.unread > self.chunk_tokens:
            stream.unread -= self.chunk_tokens
            return None
        if stream.again:
            stream.again -= 1
            return Item(stream.number, [])
        if stream.place >= stream.count:  # only the word that it ended was lost: an engine would say its stop id again
            return Item(stream.number, [], stream.finish)
        one = token_at(stream.key, stream.place, VOCABULARY) + (WRONG if self.wrong else 0)
        one = one if self.parrot is None else self.parrot
        if one in stream.asked.stop_ids:
            return Item(stream.number, [], Finish.STOP)
        stream.place += 1
        stream.made += 1
        return Item(stream.number, [one], stream.finish if stream.place >= stream.count else None)
