"""The archive: what all workers of this machine have journalled, read where it lies.

It reads only when somebody asks, newest sheets first, and each record once. Reading a long journal is cut into slices, so that
the answers of this worker flow on meanwhile. Of several owners of one answer the last counts.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from holdfast.domain import journal as records
from holdfast.domain.fault import Fault
from holdfast.domain.journal import Begun, Damaged, Kind
from holdfast.domain.ports import Clock, Sheet, Shelf
from holdfast.domain.request import Finish, Generation, TokenLogprob

FRESH_S = 1.0  # a writer whose loop did not turn for so long is taken for frozen
AGAIN_S = 0.005  # the folder is not listed more often than this by those who only follow
SLICE_RECORDS = 4096  # a few milliseconds


@dataclass(eq=False)
class Kept:
    """One answer as its last owner left it, or is still writing it. `alive`: the owner lives, and its loop turns."""

    begun: Begun
    owner: str
    number: int
    ids: list[int] = field(default_factory=list)
    rows: list[TokenLogprob] = field(default_factory=list)
    cached: int = 0
    moves: int = 0
    finish: Finish | None = None
    fault: Fault | None = None
    left: bool = False
    alive: bool = True
    broken: bool = False  # a record is missing: nothing is known from there on, until all is written anew
    _leaf: int = -1
    _at: int = -1

    @property
    def owners(self) -> int:
        """How many had written it before this owner."""
        return self.begun.owners

    @property
    def ended(self) -> bool:
        return self.finish is not None or self.fault is not None

    @property
    def generation(self) -> Generation:
        """What goes on with it, without an API key."""
        return records.generation_of(self.begun, list(self.ids))

    def add(self, buffer: memoryview, at: int) -> None:
        """One more record of this stream. Raises Damaged."""
        _, _, kind, _ = records.head_at(buffer, at)
        end = records.end_at(buffer, at)
        if kind == Kind.BEGIN:
            self.begun = begun = records.read_begin(buffer, at, end)
            self.ids, self.rows = begun.delivered_ids, begun.rows
            self.cached, self.moves, self.broken = begun.cached, begun.moves, False
        elif kind in (Kind.IDS, Kind.RICH):
            rich = records.read_tokens(buffer, kind, at, end)
            self.broken |= rich.at != len(self.ids)
            if not self.broken:
                self.ids += rich.ids
                if kind == Kind.RICH:
                    self.rows += rich.rows or ()
                    self.cached, self.moves = rich.cached or self.cached, rich.moves
        elif kind == Kind.LEFT:
            self.left = True
        elif kind == Kind.END and not self.broken:
            last = records.read_end(buffer, at, end)
            self.finish, self.fault = last.finish, records.fault_of(last)


class _Leaf:
    """One sheet: where reading stands in it, and where the records of each stream lie."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.at = records.START
        self.places: dict[int, array[int]] = {}  # by stream; begins with its last BEGIN if this sheet holds one
        self.numbers: dict[str, int] = {}  # by generation
        self.keys: dict[str, str] = {}  # generations by idempotency digest

    def read(self, limit: int = 1 << 60) -> bool:
        """Take in up to `limit` records. Returns whether there may be more at once."""
        buffer, places = self.sheet.buffer, self.places
        for kind, number, at, end in records.records(buffer, self.at):
            if kind == Kind.BEGIN:
                name, key = records.names_of(buffer, at)
                self.numbers[name] = number
                if key:
                    self.keys[key] = name
                places[number] = array("I", (at,))
            elif number in places:
                places[number].append(at)
            else:
                places[number] = array("I", (at,))
            self.at = end
            limit -= 1
            if not limit:
                return True
        return False


class _Log:
    """All sheets of one worker's life, by their number."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.leaves: dict[int, _Leaf] = {}
        self.kept: WeakValueDictionary[int, Kept] = WeakValueDictionary()
        self.alive = True
        self.held = True
        self.dead_at: float | None = None

    def look(self, now: float) -> None:
        """Whether the writer lives, and its loop turns."""
        newest = self.leaves[max(self.leaves)].sheet
        self.held = newest.held()
        self.alive = self.held and abs(now - records.last_beat(newest.buffer)) < FRESH_S

    def newest(self, generation: str) -> Kept | None:
        """What the newest sheet that names this generation, and those after it, tell."""
        for order in sorted(self.leaves, reverse=True):
            leaf = self.leaves[order]
            number = leaf.numbers.get(generation)
            if number is not None:
                kept = self.kept.get(number)
                if kept is None:
                    at = leaf.places[number][0]
                    begun = records.read_begin(leaf.sheet.buffer, at, records.end_at(leaf.sheet.buffer, at))
                    kept = self.kept[number] = Kept(begun, self.owner, number, _leaf=order)
                self.update(kept)
                return kept
        return None

    def update(self, kept: Kept) -> None:
        """Bring it up to what has been read. Raises Damaged."""
        kept.alive = self.alive
        for order in sorted(one for one in self.leaves if one >= kept._leaf):
            places = self.leaves[order].places.get(kept.number)
            if places is None:
                continue
            if order > kept._leaf:
                kept._leaf, kept._at = order, -1
            buffer = self.leaves[order].sheet.buffer
            for at in places[bisect_right(places, kept._at) :]:
                kept._at = at
                kept.add(buffer, at)


class Archive:
    """Reads a shelf. `find` is as of now."""

    def __init__(self, shelf: Shelf, clock: Clock, grace_s: float = 60.0) -> None:
        self._shelf, self._clock, self.grace_s = shelf, clock, grace_s
        self._logs: dict[str, _Log] = {}
        self._listed_at = float("-inf")

    async def catch_up(self) -> None:
        """Read what is new, in slices. Afterwards `find` has little left to read."""
        self._list()
        for log in list(self._logs.values()):
            for order in sorted(log.leaves, reverse=True):
                while order in log.leaves and log.leaves[order].read(SLICE_RECORDS):
                    await self._clock.sleep(0)

    def find(self, generation: str) -> Kept | None:
        """The answer of that id as its last owner has it; None when nobody has it (any more)."""
        self._read_all()
        best: Kept | None = None
        for log in self._logs.values():
            try:
                kept = log.newest(generation)
            except Damaged:
                continue
            if kept is not None and (best is None or kept.owners > best.owners):
                best = kept
        return best

    def find_idempotent(self, digest: str) -> Kept | None:
        """The answer that was begun under this idempotency key and has not failed; the one with the most owners if several."""
        self._read_all()
        names = {
            leaf.keys[digest] for log in self._logs.values() for leaf in log.leaves.values() if digest in leaf.keys
        }
        found = [kept for name in sorted(names) if (kept := self.find(name)) is not None and kept.fault is None]
        return max(found, key=lambda kept: kept.owners, default=None)

    def owners(self, generation: str) -> int:
        """How many owners it has had before the last one; -1 when it is not known."""
        kept = self.find(generation)
        return -1 if kept is None else kept.owners

    def update(self, kept: Kept) -> None:
        """Take in what its owner has written since. Cheap: it reads that owner's sheets only."""
        log = self._logs.get(kept.owner)
        now = self._clock.now()
        if now - self._listed_at >= AGAIN_S:
            self._list()
            log = self._logs.get(kept.owner)
        if log is None:
            kept.alive = False
            return
        for leaf in log.leaves.values():
            leaf.read()
        try:
            log.update(kept)
        except Damaged:
            kept.broken = True

    def sweep(self, now: float) -> None:
        """Drop what dead workers left once its grace is over."""
        self._list()
        for log in list(self._logs.values()):
            if log.held:
                log.dead_at = None
            elif log.dead_at is None:
                log.dead_at = now
            elif now - log.dead_at > self.grace_s:
                for order in log.leaves:
                    self._shelf.remove(f"{log.owner}.{order:06d}")

    def close(self) -> None:
        """Let go of all sheets."""
        for log in self._logs.values():
            for leaf in log.leaves.values():
                leaf.sheet.close()
        self._logs.clear()

    def _read_all(self) -> None:
        self._list()
        for log in self._logs.values():
            for leaf in log.leaves.values():
                leaf.read()

    def _list(self) -> None:
        """Open what is new, forget what is gone, see who lives."""
        self._listed_at = now = self._clock.now()
        there: dict[str, set[int]] = {}
        for name in self._shelf.names():
            owner, _, order = name.rpartition(".")
            if owner and order.isdigit():
                there.setdefault(owner, set()).add(int(order))
        for owner in self._logs.keys() - there.keys():
            for leaf in self._logs.pop(owner).leaves.values():
                leaf.sheet.close()
        for owner, orders in there.items():
            self._fit(owner, orders, now)

    def _fit(self, owner: str, orders: set[int], now: float) -> None:
        log = self._logs.setdefault(owner, _Log(owner))
        for order in log.leaves.keys() - orders:
            log.leaves.pop(order).sheet.close()
        for order in sorted(orders - log.leaves.keys()):
            sheet = self._shelf.open(f"{owner}.{order:06d}")
            if sheet is not None and records.stamped(sheet.buffer):
                log.leaves[order] = _Leaf(sheet)
            elif sheet is not None:
                sheet.close()
        if log.leaves:
            log.look(now)
        else:
            del self._logs[owner]
