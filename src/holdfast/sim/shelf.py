"""A machine's shelf in memory: what simulated workers share, and what outlives them.

`SimShelves` is the folder; each worker holds a `SimShelf` on it. Levers: `die` (its locks are gone, and its last record may be
cut at any byte, as a kill in the middle of a copy would), `freeze` (what it writes is not seen until `thaw`; it counts as
alive), `full` (creating fails, with the sentence), `flip` (one bit of a sheet).
"""

from dataclasses import dataclass, field

from holdfast.domain import journal

NO_ROOM = 28  # ENOSPC


@dataclass(eq=False)
class _Kept:
    owner: "SimShelf"
    data: bytearray
    seen: bytes | None = None  # what others see while the owner is frozen


@dataclass
class SimShelves:
    """Sheets and claims by name."""

    full: str = ""
    sheets: dict[str, _Kept] = field(default_factory=dict)
    claims: dict[str, "SimShelf"] = field(default_factory=dict)

    def shelf(self) -> "SimShelf":
        """One worker's access; every life of a worker takes a new one."""
        return SimShelf(self)

    def die(self, worker: "SimShelf", torn: int | None = None) -> None:
        """The worker's process is gone. `torn`: so many bytes of its last record were written, counted modulo its length."""
        worker.alive = False
        self.thaw(worker)
        self.claims = {name: who for name, who in self.claims.items() if who is not worker}
        if torn is not None:
            self._tear(worker, torn)

    def freeze(self, worker: "SimShelf") -> None:
        worker.frozen = True
        for one in self._of(worker).values():
            one.seen = bytes(one.data)

    def thaw(self, worker: "SimShelf") -> None:
        worker.frozen = False
        for one in self._of(worker).values():
            one.seen = None

    def flip(self, name: str, bit: int) -> None:
        """Turn one bit of a sheet over, counted modulo its size."""
        data = self.sheets[name].data
        bit %= len(data) * 8
        data[bit // 8] ^= 1 << bit % 8

    def _of(self, worker: "SimShelf") -> dict[str, _Kept]:
        return {name: one for name, one in self.sheets.items() if one.owner is worker}

    def _tear(self, worker: "SimShelf", torn: int) -> None:
        """Cut the last record of the newest sheet that has one."""
        for _, one in sorted(self._of(worker).items(), reverse=True):
            ends = [(at - journal.FRAME_BYTES - journal.TAG_BYTES, end) for _, _, at, end in _whole(one.data)]
            if ends:
                begin, end = ends[-1]
                cut = begin + torn % (end - begin)
                one.data[cut:end] = bytes(end - cut)
                return


def _whole(data: bytearray) -> list[tuple[int, int, int, int]]:
    with memoryview(data) as buffer:
        return list(journal.records(buffer, journal.START))


class SimShelf:
    """The Shelf port for one worker's life."""

    def __init__(self, shelves: SimShelves) -> None:
        self._shelves = shelves
        self.alive = True
        self.frozen = False

    def create(self, name: str, size: int) -> "SimSheet":
        """Raises OSError while the shelves are full, or when the name is taken."""
        if self._shelves.full:
            raise OSError(NO_ROOM, self._shelves.full)
        if name in self._shelves.sheets:
            raise FileExistsError(name)
        kept = _Kept(self, bytearray(size), bytes(size) if self.frozen else None)
        self._shelves.sheets[name] = kept
        return SimSheet(kept, self)

    def open(self, name: str) -> "SimSheet | None":
        kept = self._shelves.sheets.get(name)
        return None if kept is None else SimSheet(kept, self)

    def names(self) -> list[str]:
        return sorted(self._shelves.sheets)

    def remove(self, name: str) -> None:
        """Drop a sheet, or let go of a claim of ours."""
        self._shelves.sheets.pop(name, None)
        if self._shelves.claims.get(name) is self:
            del self._shelves.claims[name]

    def claim(self, name: str) -> bool:
        """Given once: the worker that holds it is refused too, as the real one does."""
        if not self.alive or name in self._shelves.claims:
            return False
        self._shelves.claims[name] = self
        return True


class SimSheet:
    """The Sheet port."""

    def __init__(self, kept: _Kept, reader: SimShelf) -> None:
        self._kept, self._reader = kept, reader

    @property
    def buffer(self) -> memoryview:
        kept = self._kept
        if kept.seen is not None and kept.owner is not self._reader:
            return memoryview(kept.seen)
        return memoryview(kept.data)

    def held(self) -> bool:
        return self._kept.owner.alive

    def close(self) -> None:
        """Nothing is held open."""
