"""The model behind a scripted foreign engine: the next token is a pure function of all ids before it, as with a real model.

So greedy answers continue token for token when what was delivered comes back as prompt, sampled ones do not, and a token that
was lost or doubled at a cut changes everything after it. Slots, a queue, counters and mishaps are here; how they are told is each
dialect's own (sim/vllm_server.py and its like).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.sim.scripted import Mishap

_MASK = (1 << 64) - 1
_PROMPTS_REMEMBERED = 256
# What befalls one request, by the words of the contract suite. On arrival: refused, crowded, rejected. After so many tokens its
# stream ends, as the dialect has it: fault, aborted, unfinished, ended (without even an end mark), cut, reset, garbage. Or it
# waits until released: stalled after so many tokens, slow before the answer's head.
ON_ARRIVAL = ("refused", "crowded", "rejected")
FOREIGN_MISHAPS = (
    *ON_ARRIVAL,
    *("fault", "aborted", "unfinished", "ended", "cut", "reset", "garbage"),
    *("stalled", "slow"),
)


class Struck(Exception):
    """A mishap is due: its kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class QueueFull(Exception):
    """No slot and no room in the queue."""


class ForeignScript(Struct, frozen=True, kw_only=True):
    """How it behaves. Answers are made of `vocabulary`; `eos_id` comes by itself about every `eos_every` tokens, 0: never."""

    model: str = "scripted"
    version: str = "0.33.0"
    vocabulary: tuple[int, ...] = tuple(range(16, 272))
    vocab_size: int = 512
    eos_id: int = 1
    eos_every: int = 0
    slots: int = 4
    queue_max: int = 64
    context_tokens_max: int = 512
    token_s: float = 0.0005
    key: str = ""


class Order(Struct, frozen=True):
    """What one request asks for: all ids before the answer, and how it goes on. `seed` is None where it is greedy."""

    ids: Sequence[int]
    tokens_max: int
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    forced: tuple[int, ...] = ()  # a grammar's only answer


class Made(Struct, frozen=True):
    """One token. `stopped` says that it is a stop id, `last` that the answer is over with it."""

    id: int
    stopped: bool
    last: bool


def _mix(z: int) -> int:
    """splitmix64's finaliser."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def fold(key: int, ids: Sequence[int]) -> int:
    """64 bits that stand for all ids so far."""
    for id in ids:
        key = _mix((key + (id + 1) * 0x9E3779B97F4A7C15) & _MASK)
    return key


def next_id(key: int, script: ForeignScript, seed: int | None = None) -> int:
    """The token after what `key` stands for: the likeliest, or the one that `seed` draws."""
    z = _mix(key ^ 0x5851F42D4C957F2D) if seed is None else _mix(key ^ _mix(seed & _MASK))
    if script.eos_every and z % script.eos_every == 0:
        return script.eos_id
    return script.vocabulary[(z >> 8) % len(script.vocabulary)]


def foreign_answer(prompt_ids: Sequence[int], tokens: int, script: ForeignScript) -> list[int]:
    """The first ids of the greedy answer, an EOS where it comes and nothing after it."""
    key, made = fold(0, prompt_ids), []
    for _ in range(tokens):
        id = next_id(key, script)
        made.append(id)
        if id == script.eos_id:
            break
        key = fold(key, [id])
    return made


class ForeignModel:
    """Runs requests. `befall` queues a mishap for the next request; `release` ends what waits; `frozen` and `dead` may be set."""

    def __init__(self, script: ForeignScript, clock: Clock) -> None:
        self.script, self._clock = script, clock
        self.running = self.waiting = 0
        self.steps = self.prompt_tokens = self.generation_tokens = 0
        self.dead = False
        self._frozen = False
        self._befalling: deque[Mishap] = deque()
        self._released = asyncio.Event()
        self._slots = asyncio.Semaphore(script.slots)
        self._seen: dict[int, None] = {}

    def befall(self, kind: str, after_tokens: int = 0) -> None:
        """See FOREIGN_MISHAPS."""
        if kind not in FOREIGN_MISHAPS:
            raise ValueError(f"{kind!r} is none of {', '.join(FOREIGN_MISHAPS)}")
        self._befalling.append(Mishap(kind, after_tokens))

    def release(self) -> None:
        """End every wait so far, and the freeze."""
        self._frozen = False
        released, self._released = self._released, asyncio.Event()
        released.set()

    @property
    def frozen(self) -> bool:
        return self._frozen

    def freeze(self) -> None:
        """Nothing is made any more, until released. Whoever asks how it is gets the usual answer."""
        self._frozen = True

    def arrive(self) -> Mishap | None:
        """The mishap of a request that has just come. Raises Struck for those on arrival, QueueFull."""
        mishap = self._befalling.popleft() if self._befalling else None
        if mishap is not None and mishap.kind in ON_ARRIVAL:
            raise Struck(mishap.kind)
        if self._slots.locked() and self.waiting >= self.script.queue_max:
            raise QueueFull
        return mishap

    async def begin(self, mishap: Mishap | None) -> None:
        """Wait before the head of the answer where it is told to be slow."""
        if mishap is not None and mishap.kind == "slow":
            await self._released.wait()

    def recall(self, ids: Sequence[int]) -> int:
        """Prompt tokens found in the cache: all but the last of a prompt that came before."""
        key = fold(0, ids)
        known = key in self._seen
        self._seen[key] = None
        if len(self._seen) > _PROMPTS_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return len(ids) - 1 if known else 0

    async def answer(self, order: Order, mishap: Mishap | None) -> AsyncGenerator[Made, None]:
        """The tokens, a stop id included. Raises Struck when the mishap is due."""
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            key, made, seed = fold(0, order.ids), 0, order.seed
            self.prompt_tokens += len(order.ids)
            while True:
                await self._pace(mishap, made)
                if made < len(order.forced):
                    id = order.forced[made]
                else:
                    id = self.script.eos_id if order.forced else next_id(key, self.script, seed)
                key = fold(key, [id])
                made += 1
                self.steps += 1
                self.generation_tokens += 1
                stopped = id in order.stop_ids
                last = stopped or made >= order.tokens_max
                last = last or len(order.ids) + made >= self.script.context_tokens_max
                yield Made(id, stopped, last)
                if last:
                    return
        finally:
            self.running -= 1
            self._slots.release()

    async def _pace(self, mishap: Mishap | None, made: int) -> None:
        await self._clock.sleep(self.script.token_s)
        if mishap is not None and made == mishap.after_tokens and mishap.kind != "slow":
            if mishap.kind != "stalled":
                raise Struck(mishap.kind)
            await self._released.wait()
        while self._frozen:
            await self._released.wait()
