"""The board: one sheet of shared memory a worker, which it alone writes and everybody on the machine may read.

A sheet has two parts. The counts per replica change with every answer: each is one aligned word, so that nobody can read half
of it, and a put is one store. The view is longer and slower: it is written into the one of two places that nobody is asked to
read, with its checksum, and only then is the other number told. So a writer that is killed or frozen at any instruction leaves
the view of before, and no reader ever waits for a writer. Who holds the lock of a sheet lives; what the dead have left counts
nothing and is swept by whoever finds it.
"""

import hashlib
import zlib
from pathlib import Path

import msgspec
from msgspec import structs

from holdfast.domain.board import ReplicaView, TenantView, WorkerView
from holdfast.domain.ports import Sheet, Shelf
from holdfast.store.shelf import FileShelf, shelf_folder

MAGIC = int.from_bytes(b"holdfas1", "little")
BOOTS_MAX = 64
VIEW_BYTES_MAX = 128 * 1024  # some 500 busy tenants
STALE_S = 2.0  # a view that is older than this beside another one's is that of a frozen worker
TOKENS_BITS = 44  # of a count's word; the streams have the other 20
TOKENS_MAX, STREAMS_MAX = (1 << TOKENS_BITS) - 1, (1 << 64 - TOKENS_BITS) - 1

# the sheet, in words of 8 bytes
_MAGIC, _TABLE, _VIEW = 0, 1, 2  # whose it is; changes of which boot has which count; views told so far
_BOOTS = 8
_COUNTS = _BOOTS + BOOTS_MAX
_PLACES = 512  # of the view: even numbers in the first, odd ones in the second; each length, checksum, then msgpack
_PLACE = 2 + VIEW_BYTES_MAX // 8
SHEET_BYTES = (_PLACES + 2 * _PLACE) * 8

TRIES = 4  # at a view that its writer overtakes twice while we read: 200 ms of writing against microseconds of reading
_decode = msgspec.msgpack.Decoder(WorkerView).decode
_encode = msgspec.msgpack.Encoder().encode


def board_folder(root: Path) -> Path:
    """Where the board of the site with this state folder lies: always in memory, beside its journal's own place."""
    folder = shelf_folder("", root)
    return folder.with_name(f"{folder.name}.board")


def views(folder: Path) -> list[WorkerView]:
    """What all living workers have told last, by their names; frozen ones too, so look at `at`."""
    shelf, found = FileShelf(folder), []
    for name in shelf.names():
        sheet = shelf.open(name)
        if sheet is None:
            continue
        told = _Told(sheet)
        if told.whole and sheet.held() and (view := told.view()) is not None:
            found.append(view)
        told.close()
    return sorted(found, key=lambda view: view.worker)


class FileBoard:
    """The Board port. `owner` is unique for each life of a worker; `worker` is its name.

    Raises OSError when the sheet can't be made: no memory left, or a folder that isn't ours.
    """

    def __init__(self, shelf: Shelf, owner: str) -> None:
        self._shelf, self._owner = shelf, owner
        self._sheet: Sheet | None = shelf.create(owner, SHEET_BYTES)
        self._buffer = self._sheet.buffer
        self._cells = self._buffer.cast("Q")
        self._at: dict[str, int] = {}  # boot -> its count's word
        self._digests: dict[str, int] = {}
        self._others: dict[str, _Told] = {}
        self._others_now: tuple[_Told, ...] = ()
        self._own: WorkerView | None = None
        self._cells[_MAGIC] = MAGIC
        self._look()

    def put(self, boot: str, streams: int, tokens: int) -> None:
        """One store. Beyond 64 replicas at the same time the further ones' counts are not shared."""
        at = self._at.get(boot)
        if at is None:
            at = self._room_for(boot) if streams or tokens else 0
            if not at:
                return
        if tokens < 0 or tokens > TOKENS_MAX or streams < 0 or streams > STREAMS_MAX:
            tokens, streams = min(max(0, tokens), TOKENS_MAX), min(max(0, streams), STREAMS_MAX)
        self._cells[at] = streams << TOKENS_BITS | tokens

    def others(self, boot: str) -> tuple[int, int]:
        """Answers and cache places of all other workers on this replica; those who died count until the next `told`."""
        others = self._others_now
        if not others:
            return 0, 0
        digest = self._digests.get(boot) or self._digest(boot)
        streams = tokens = 0
        for told in others:
            cells = told.cells
            if cells[_TABLE] != told.table:
                told.learn()
            at = told.at.get(digest)
            if at is not None:
                word = cells[at]
                streams += word >> TOKENS_BITS
                tokens += word & TOKENS_MAX
        return streams, tokens

    def tell(self, view: WorkerView) -> None:
        """Publish; a view that is too long loses those tenants and replicas that have the least to do."""
        self._own, said = fitting(view)
        number = self._cells[_VIEW] + 1
        place = _PLACES + (number & 1) * _PLACE
        begin = (place + 2) * 8
        self._buffer[begin : begin + len(said)] = said
        self._cells[place], self._cells[place + 1] = len(said), zlib.crc32(said)
        self._cells[_VIEW] = number

    def told(self) -> list[WorkerView]:
        """Views of all living workers that are not frozen, by their names, our own last told one among them."""
        self._look()
        found = [view for one in self._others_now if (view := one.view()) is not None]
        if self._own is not None:
            found.append(self._own)
        newest = max((view.at for view in found), default=0.0)
        return sorted((view for view in found if view.at >= newest - STALE_S), key=lambda view: view.worker)

    def close(self) -> None:
        """Leave the board. What is put or told afterwards goes nowhere."""
        if self._sheet is None:
            return
        for told in self._others_now:
            told.close()
        self._others, self._others_now = {}, ()
        sheet, self._sheet = self._sheet, None
        self._cells.release()
        self._buffer = memoryview(bytearray(SHEET_BYTES))
        self._cells = self._buffer.cast("Q")
        self._shelf.remove(self._owner)
        sheet.close()

    def _look(self) -> None:
        """Who is there? Sheets of the dead are dropped."""
        if self._sheet is None:
            return
        names = self._shelf.names()
        for name in names:
            if name != self._owner and name not in self._others and (sheet := self._shelf.open(name)) is not None:
                told = _Told(sheet)
                if told.whole:
                    self._others[name] = told
                else:
                    told.close()
        for name, told in list(self._others.items()):
            if name not in names or not told.sheet.held():
                del self._others[name]
                told.close()
                self._shelf.remove(name)
        self._others_now = tuple(self._others.values())

    def _room_for(self, boot: str) -> int:
        """A word for this boot's count, if need be that of one with nothing in flight; 0 when there is none."""
        taken = set(self._at.values())
        at = next((at for at in range(_COUNTS, _COUNTS + BOOTS_MAX) if at not in taken), 0)
        if not at:
            idle = next((other for other, where in self._at.items() if not self._cells[where]), "")
            if not idle:
                return 0
            at = self._at.pop(idle)
        self._at[boot] = at
        self._cells[at - _COUNTS + _BOOTS] = self._digest(boot)
        self._cells[_TABLE] += 1
        return at

    def _digest(self, boot: str) -> int:
        """The boot in 8 bytes, never 0. Two in 64 meet once in 10^16 sites; each would be taken for fuller than it is."""
        if len(self._digests) >= 16 * BOOTS_MAX:
            self._digests.clear()
        said = hashlib.blake2b(boot.encode(), digest_size=8).digest()
        found = self._digests[boot] = int.from_bytes(said, "little") or 1
        return found


class _Told:
    """Another worker's sheet, as we read it."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet, self._buffer = sheet, sheet.buffer
        self.whole = len(self._buffer) == SHEET_BYTES
        self.cells = self._buffer.cast("Q") if self.whole else memoryview(bytes(SHEET_BYTES)).cast("Q")
        self.whole = self.whole and self.cells[_MAGIC] in (MAGIC, 0)  # 0: it has this moment been made
        self.at: dict[int, int] = {}
        self.table = 0
        self._number = 0
        self._view: WorkerView | None = None

    def learn(self) -> None:
        """Which boot has which word. One that changes hands under our eyes is idle: reading it for another is a zero."""
        self.table = self.cells[_TABLE]
        boots = self.cells[_BOOTS : _BOOTS + BOOTS_MAX].tolist()
        self.at = {digest: _COUNTS + number for number, digest in enumerate(boots) if digest}

    def view(self) -> WorkerView | None:
        """The newest whole one; None before the first."""
        for _ in range(TRIES):
            number = self.cells[_VIEW]
            if number == self._number:
                break
            place = _PLACES + (number & 1) * _PLACE
            length, checksum = self.cells[place], self.cells[place + 1]
            begin = (place + 2) * 8
            said = bytes(self._buffer[begin : begin + min(length, VIEW_BYTES_MAX)])
            if zlib.crc32(said) == checksum and len(said) == length:
                try:
                    self._view = _decode(said)
                except msgspec.MsgspecError:
                    break  # whole, and not of our kind: another release of ours writes it
                self._number = number
                break
        return self._view

    def close(self) -> None:
        self.cells.release()
        self.sheet.close()


def fitting(view: WorkerView) -> tuple[WorkerView, bytes]:
    """The view, and its bytes, without those tenants and replicas for which its place has no room."""
    said = _encode(view)
    while len(said) > VIEW_BYTES_MAX:
        tenants = sorted(view.tenants, key=_busy, reverse=True)
        replicas = sorted(view.replicas, key=_loaded, reverse=True)
        if len(tenants) >= len(replicas):
            tenants = tenants[: len(tenants) * 3 // 4]
        else:
            replicas = replicas[: len(replicas) * 3 // 4]
        if not tenants and not replicas:
            view = structs.replace(view, refused={}, sharing=view.sharing[:200], rung_why=view.rung_why[:200])
        view = structs.replace(view, tenants=tuple(tenants), replicas=tuple(replicas))
        said = _encode(view)
    return view, said


def _busy(tenant: TenantView) -> tuple[int, int, float]:
    return tenant.waiting + tenant.running, tenant.admitted, tenant.served_tokens


def _loaded(replica: ReplicaView) -> tuple[int, int]:
    return replica.running, replica.outstanding_tokens
