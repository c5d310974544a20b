"""Affinity: which replica has the beginning of this prompt in its cache? A chat's next turn costs little where its last one was.

Prompts are cut into blocks of BLOCK tokens, and each block is known by a hash of itself and all before it. One worker remembers
which replicas were given which block, the oldest leave. A prompt whose first block nobody knows goes where the ring says
(consistent hashing): so workers that don't talk to one another agree on where a beginning lives, and a replica that comes or
goes moves few of them. A session's name is one more such key: a hint, nothing more.

All of it is a guess about somebody else's cache. Wrong or lost it costs a prompt that is read again, never an answer; whoever
balances bounds how much load a guess may attract (policy/balance.py).
"""

from bisect import bisect_left
from zlib import crc32

from msgspec import Struct

BLOCK = 64
BLOCKS_MAX = 512  # of one prompt: 32,768 tokens are enough to tell where it belongs
HOLDERS_MAX = 4  # replicas that are remembered for one block, newest first
POINTS = 32  # of each replica on the ring
WALK_MAX = 4  # replicas that the ring names for one key
_MIX = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: neighbouring hashes get far apart
_BITS = (1 << 64) - 1


class Found(Struct, frozen=True):
    """`near`: boots that may have the beginning, best first, in groups of equals. `tokens`: how much the first group has."""

    near: tuple[tuple[str, ...], ...] = ()
    tokens: int = 0


NOTHING = Found()


def chain(prompt_ids: list[int]) -> list[int]:
    """The hashes of its whole blocks, each of everything up to there. The last token is left out: it is always computed."""
    blocks = min((len(prompt_ids) - 1) // BLOCK, BLOCKS_MAX)
    found = []
    before = 0
    for start in range(0, blocks * BLOCK, BLOCK):
        before = hash((before, *prompt_ids[start : start + BLOCK]))
        found.append(before)
    return found


class Ring:
    """Replicas by their boots on a circle of 64-bit numbers. The same in every worker: Python salts no hash of numbers."""

    def __init__(self) -> None:
        self._points: list[int] = []
        self._names: list[str] = []
        self._wanted: frozenset[str] = frozenset()
        self._members: frozenset[str] = frozenset()
        self._walks: dict[int, tuple[tuple[str, ...], ...]] = {}  # by the index of the point where they begin

    def set(self, names: frozenset[str]) -> None:
        """Who is there now. The points are found when they are needed: many often come or go at once."""
        self._wanted = names

    def _turn(self) -> None:
        """Make the points those of who is there."""
        names = self._wanted
        gone, new = self._members - names, names - self._members
        points = [(p, n) for p, n in zip(self._points, self._names, strict=True) if n not in gone]
        for name in new:
            points += [(crc32(f"{name}/{i}".encode()) * _MIX & _BITS, name) for i in range(POINTS)]
        points.sort()
        self._points, self._names = [p for p, _ in points], [n for _, n in points]
        self._members = names
        self._walks.clear()

    def walk(self, key: int) -> tuple[tuple[str, ...], ...]:
        """The first WALK_MAX different replicas from there on, each a group of its own."""
        if self._wanted is not self._members:
            self._turn()
        names = self._names
        if not names:
            return ()
        at = bisect_left(self._points, key * _MIX & _BITS) % len(names)
        walked = self._walks.get(at)
        if walked is not None:
            return walked
        found: dict[str, None] = {}
        for step in range(len(names)):
            found[names[(at + step) % len(names)]] = None
            if len(found) == WALK_MAX:
                break
        walk = self._walks[at] = tuple((name,) for name in found)
        return walk


class Affinity:
    """One worker's memory of who has what, replicas by their boots. `blocks_max` bounds it: some 200 bytes each."""

    def __init__(self, blocks_max: int) -> None:
        self.blocks_max = blocks_max
        self.ring = Ring()
        self._holders: dict[int, tuple[str, ...]] = {}  # by hash, least recently used first
        self._last: tuple[list[int], list[int]] = ([], [])  # the newest prompt and its chain

    def __len__(self) -> int:
        return len(self._holders)

    def known(self, prompt_ids: list[int]) -> Found:
        """What is remembered of its beginning, without the ring's word on prompts that nobody has. No work while nothing is."""
        return self.find(prompt_ids) if self._holders else NOTHING

    def find(self, prompt_ids: list[int], session: str = "") -> Found:
        """Who may have its beginning. Nobody is named for a prompt of less than a block without a session."""
        if self.blocks_max <= 0 or (len(prompt_ids) <= BLOCK and not session):
            return NOTHING
        blocks = self._chain(prompt_ids)
        holders = self._holders
        low, high = 0, len(blocks)
        while low < high:  # where one block is known, so are all before it
            middle = (low + high + 1) // 2
            if blocks[middle - 1] in holders:
                low = middle
            else:
                high = middle - 1
        known: tuple[tuple[str, ...], ...] = ()
        if low:
            deepest, first = holders[blocks[low - 1]], holders[blocks[0]]
            known = (deepest,) if deepest == first else (deepest, first)
        key = _key(session) if session else 0
        if session and key in holders:
            home = holders[key]
            return Found((home, *known), low * BLOCK if low and home[0] in known[0] else 0)
        if low:
            return Found(known, low * BLOCK)
        return Found(self.ring.walk(key if session else blocks[0]))

    def learn(self, prompt_ids: list[int], boot: str, session: str = "") -> None:
        """It has been given this prompt."""
        if self.blocks_max <= 0 or (len(prompt_ids) <= BLOCK and not session):
            return
        holders = self._holders
        if session:
            key = _key(session)
            holders.pop(key, None)
            holders[key] = (boot,)
        blocks = self._chain(prompt_ids)
        if blocks and holders.get(blocks[-1], ("",))[0] == boot:
            blocks = []  # told before; not made young again, which costs a hot beginning one miss in a whole memory's length
        for block in reversed(blocks):  # a block never leaves before those that go on from it
            had = holders.pop(block, ())
            if not had or had[0] != boot:
                had = (boot, *(one for one in had if one != boot))[:HOLDERS_MAX]
            holders[block] = had
        while len(holders) > self.blocks_max:
            del holders[next(iter(holders))]

    def _chain(self, prompt_ids: list[int]) -> list[int]:
        if self._last[0] is not prompt_ids:
            self._last = prompt_ids, chain(prompt_ids)
        return self._last[1]


def _key(session: str) -> int:
    return crc32(session.encode()) * _MIX & _BITS
