"""This worker's journal: every answer it writes, kept where it outlives the worker.

Records go into sheets of a shelf, one after the other; a full sheet is sealed and the next begun. Answers that still run are
then written down anew, a few at a time, so that a sealed sheet soon holds only what has ended, and leaves after its time of
grace. Each sheet's head holds a beat: when this worker's loop last turned. A worker that finds itself late doubts that its
answers are still its own before it delivers another token.

Whatever the shelf refuses, serving goes on: `complaint` then says why answers do not outlive this worker.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from msgspec import structs

from holdfast.domain import journal as records
from holdfast.domain.event import AnswerFenced, Emit, JournalOff, JournalOn
from holdfast.domain.fault import Fault, Fenced
from holdfast.domain.journal import Begun
from holdfast.domain.ports import Clock, Sheet, Shelf
from holdfast.domain.release import Release
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.archive import Archive, Kept
from holdfast.gateway.kinds import Kinds

SHEET_BYTES_MIN = 1024 * 1024
SHEET_BYTES_MAX = 16 * 1024 * 1024
BEAT_S = 0.2
LATE_S = 0.8  # below archive.FRESH_S: we doubt before others act
HURRIED_S = 5.0  # a sheet that was full sooner is followed by a larger one: few files are to be open
RETRY_S = 1.0  # between two tries to get a sheet, when there was none
ANEW_TOKENS = 100_000  # of running answers, written down anew in one sweep: some milliseconds


@lru_cache(maxsize=1024)
def digest_of_key(key: str) -> bytes:
    """What the journal keeps of an API key."""
    return blake2b(key.encode(), digest_size=16, person=b"holdfast-key").digest()


@dataclass(slots=True, eq=False)
class Live:
    """One answer that this worker writes."""

    number: int
    begun: Begun
    ids: list[int]
    rows: list[TokenLogprob]
    owners: int
    cached: int = 0
    moves: int = 0
    moves_before: int = 0  # in other workers' hands
    fenced: bool = False
    unfit: str = ""  # why this one is not in the journal

    def state(self) -> Begun:
        """All of it, as one record."""
        return structs.replace(
            self.begun,
            owners=self.owners,
            delivered_ids=self.ids,
            rows=self.rows,
            cached=self.cached,
            moves=self.moves,
        )


@dataclass(slots=True, eq=False)
class _Leaf:
    """One sheet of ours. `anew`: answers that ran when it was sealed, and are not yet written elsewhere."""

    name: str
    sheet: Sheet
    size: int
    opened_at: float
    sealed_at: float = -1.0
    anew: deque[Live] = field(default_factory=deque)


class Journal:
    """`owner` is worker and boot, as `gateway-0.4f2a81c3`; `release` tells the digest of what answers at present.

    On a site with engines of several `kinds` that is not known before the first token: `making` tells it then.
    """

    def __init__(self, shelf: Shelf, archive: Archive, owner: str, clock: Clock, emit: Emit) -> None:
        self._shelf, self._archive, self.owner = shelf, archive, owner
        self._clock, self._now, self._emit = clock, clock.now, emit
        self.bytes_max = 128 * 1024 * 1024
        self.grace_s = 60.0
        self.release: Callable[[], str] = str
        self.kinds = Kinds()
        self.making: Callable[[str], Release | None] = lambda generation: None
        self.live: dict[str, Live] = {}
        self.complaint = ""
        self._inherited: dict[str, Kept] = {}
        self._numbers = self._leaves_made = 0
        self._sealed: deque[_Leaf] = deque()
        self._leaf: _Leaf | None = None
        self._buffer = memoryview(b"")
        self._at = self._end = 0
        self._tried_at = float("-inf")
        self._hurried = False
        self._beaten = clock.now()
        self._left_at = float("-inf")

    # what the record layer calls

    def begin(self, generation: Generation) -> Live:
        """A new answer, or one that was inherited. It is in the journal when this returns, or `complaint` says why not."""
        if self._leaf is None:
            self._open(records.START, self._now())
        begun = records.begun_of(generation, digest_of_key(generation.key), self.release())
        self._numbers += 1
        live = Live(self._numbers, begun, list(generation.delivered_ids), [], 0)
        kept = self._inherited.pop(generation.id, None)
        if kept is not None:
            live.rows, live.owners, live.cached = list(kept.rows), kept.owners + 1, kept.cached
            live.moves = live.moves_before = kept.moves
            live.begun = structs.replace(begun, key_digest=kept.begun.key_digest, release=kept.begun.release)
        record = records.begin_record(live.number, live.begun if kept is None else live.state())
        if len(record) > self.bytes_max // 4:
            live.unfit = "this request is too long for the journal"
        else:
            self._append(record)
        before = self.live.get(generation.id)
        if before is not None:  # we took it over from ourselves, having stood still: one of the two has to stop
            before.fenced = True
        self.live[generation.id] = live
        if self._leaf is not None and not live.unfit:  # from here on the record is found, and no claim is needed
            if kept is not None:
                self._shelf.remove(claim_of(generation.id, live.owners))
            elif generation.idempotency:
                self._shelf.remove(claim_of_key(generation.idempotency))
        return live

    def write(self, live: Live, chunk: Chunk) -> None:
        """Take down tokens, and the finish if there is one.

        Raises:
            Fenced: another worker has taken the answer over.
        """
        if self._now() - self._beaten > LATE_S:
            self.doubt()
        if live.fenced:
            raise Fenced("another gateway worker has taken this answer over")
        ids, rows, moves = chunk.ids, chunk.logprobs, live.moves_before + chunk.moves
        at = len(live.ids)
        plain = not (rows or chunk.cached_tokens) and moves == live.moves
        if live.moves_before:
            chunk.moves = moves
        if not at and ids:
            self._bind(live)
        live.ids += ids
        if not plain:
            live.rows += rows or ()
            live.cached = chunk.cached_tokens or live.cached
            live.moves = moves
        here, end = self._at, self._at + records.ONE_BYTES
        fits = plain and len(ids) == 1 and end <= self._end and not live.unfit
        if fits and records.put_one(self._buffer, here, live.number, at, ids[0]):
            self._at = end
        elif ids or not plain:
            self._append(records.ids_record(live.number, at, chunk, plain), live)
        if chunk.finish is not None:
            self.end(live, chunk.finish)

    def _bind(self, live: Live) -> None:
        """Its first token is here: from now on it belongs to the release that made it."""
        made_on = self.making(live.begun.id) if self.kinds.mixed else None
        if made_on is not None and made_on.digest != live.begun.release:
            live.begun = structs.replace(live.begun, release=made_on.digest)
            self._append(records.begin_record(live.number, live.state()), live)

    def end(self, live: Live, finish: Finish | None, fault: Fault | None = None) -> None:
        """The answer ended."""
        if not live.fenced:
            self._append(records.end_record(live.number, finish, fault), live)
        self._forget(live)

    def leave(self, live: Live) -> None:
        """Its reader went away midway: anybody may go on with it."""
        self._left_at = self._now()
        if not live.fenced:
            self._append(records.left_record(live.number), live)
        self._forget(live)

    def _forget(self, live: Live) -> None:
        if self.live.get(live.begun.id) is live:
            del self.live[live.begun.id]

    # taking over

    def inherit(self, kept: Kept) -> None:
        """The next `begin` of this answer goes on with what is kept of it. Called by who holds the claim."""
        self._inherited[kept.begun.id] = kept

    def disinherit(self, generation: str) -> None:
        """Forget `inherit`, should it not have come to a `begin`."""
        self._inherited.pop(generation, None)

    def doubt(self) -> None:
        """We were late: whoever waited for us may have taken answers over. Keep what is still ours, fence what is not."""
        for live in list(self.live.values()):
            if not live.fenced and not self._still_ours(live):
                live.fenced = True
                self._emit(
                    AnswerFenced(generation=live.begun.id, why="this worker was late, and another one took it over")
                )
        self.beat(self._now())

    def _still_ours(self, live: Live) -> bool:
        """Found out by claiming our own answer once more: the winner of a claim looks again before it acts, and so do we."""
        name, archive = live.begun.id, self._archive
        if live.unfit or self._leaf is None:
            return True
        if archive.owners(name) > live.owners:
            return False
        claim = claim_of(name, live.owners + 1)
        try:
            if not self._shelf.claim(claim):
                return False
        except OSError:
            return True  # nobody can claim anything
        try:
            if archive.owners(name) > live.owners:
                return False
            live.owners += 1
            self._append(records.begin_record(live.number, live.state()), live)
            return True
        finally:
            self._shelf.remove(claim)

    # the sheets

    def _append(self, record: bytes, live: Live | None = None) -> None:
        if live is not None and live.unfit:
            return
        end = self._at + len(record)
        if end > self._end:
            if self._leaf is None or not self._roll(len(record)):
                return
            end = self._at + len(record)
        self._buffer[self._at : end] = record
        self._at = end

    def _roll(self, need: int) -> bool:
        """Seal the sheet and begin another; False when there is none to be had."""
        now, leaf = self._now(), self._leaf
        if leaf is not None:
            leaf.sealed_at = now
            leaf.anew.extend(self.live.values())
            self._sealed.append(leaf)
            self._hurried = now - leaf.opened_at < HURRIED_S
        if not self._open(need + records.START, now):
            return False
        for older in list(self._sealed)[:-1]:  # whoever fills sheets faster than it sweeps must free them here
            self._write_anew(older, self.bytes_max)
        return True

    def _open(self, need: int, now: float) -> bool:
        """Get a sheet, or complain."""
        self._leaf, self._at, self._end = None, 0, 0
        if now - self._tried_at < RETRY_S and self.complaint:
            return False
        self._tried_at = now
        size = max(need, self._size())
        try:
            self._make_room(size)
            self._leaves_made += 1
            name = f"{self.owner}.{self._leaves_made:06d}"
            sheet = self._shelf.create(name, size)
        except OSError as error:
            self._complain(f"the journal can't be written: {error.strerror or error}")
            return False
        self._leaf = _Leaf(name, sheet, size, now)
        self._buffer, self._at, self._end = sheet.buffer, records.START, size
        self.beat(now)
        records.stamp(self._buffer, now)
        if self.complaint:
            self.complaint = ""
            self._leaf.anew.extend(self.live.values())
            self._emit(JournalOn(why="the journal can be written again"))
        return True

    def _complain(self, why: str) -> None:
        if not self.complaint:
            self._emit(JournalOff(why=why))
        self.complaint = why

    def _size(self) -> int:
        """Four times what runs, so that writing it anew stays a small part of all writing; more when they fill up quickly."""
        tokens = sum(len(live.ids) + len(live.begun.prompt_ids) for live in self.live.values())
        last = self._sealed[-1].size if self._sealed else 0
        size = max(SHEET_BYTES_MIN, 16 * tokens, 2 * last if self._hurried else 0)
        return min(size, SHEET_BYTES_MAX, max(SHEET_BYTES_MIN // 4, self.bytes_max // 8))

    def _make_room(self, size: int) -> None:
        """Drop sealed sheets, oldest first, until `size` fits. Raises OSError when it can't."""
        while self._sealed and not self._sealed[0].anew and self._held() + size > self.bytes_max:
            self._drop(self._sealed.popleft())
        if self._held() + size > self.bytes_max:
            raise OSError(f"it holds {self._held()} bytes of answers that still run, of {self.bytes_max} allowed")

    def _held(self) -> int:
        return sum(leaf.size for leaf in self._sealed)

    def _drop(self, leaf: _Leaf) -> None:
        self._shelf.remove(leaf.name)
        leaf.sheet.close()

    # time

    def beat(self, now: float) -> None:
        """Show that our loop turns."""
        self._beaten = now
        if self._leaf is not None:
            records.beat(self._buffer, now)

    def sweep(self, now: float) -> None:
        """Write running answers anew that lie in sealed sheets, drop sheets whose time is over, try again after a refusal."""
        if self._leaf is None:
            self._open(records.START, now)
        elif self._at > records.START and now - self._leaf.opened_at > self.grace_s / 2:
            self._roll(0)
        for leaf in (*self._sealed, self._leaf):
            if leaf is not None:
                self._write_anew(leaf, ANEW_TOKENS)
        while self._sealed and not self._sealed[0].anew and now - self._sealed[0].sealed_at > self.grace_s:
            self._drop(self._sealed.popleft())

    def _write_anew(self, leaf: _Leaf, tokens: int) -> None:
        while leaf.anew and tokens > 0 and self._leaf is not None:
            live = leaf.anew.popleft()
            if self.live.get(live.begun.id) is live and not live.fenced:
                self._append(records.begin_record(live.number, live.state()), live)
                tokens -= len(live.ids) + len(live.begun.prompt_ids)

    async def run(self) -> None:
        """Beat and sweep until cancelled."""
        swept_at = self._now()
        while True:
            await self._clock.sleep(BEAT_S)
            now = self._now()
            if now - self._beaten > LATE_S:
                self.doubt()
            self.beat(now)
            if now - swept_at >= 1.0:
                swept_at = now
                self.sweep(now)
                self._archive.sweep(now)

    def owes(self) -> bool:
        """Whether answers that this worker left midway may still be asked for."""
        return bool(self.live) or self._now() - self._left_at < self.grace_s

    def close(self) -> None:
        """Let go of the sheets; they stay for others to read."""
        for leaf in (*self._sealed, self._leaf):
            if leaf is not None:
                leaf.sheet.close()
        self._sealed.clear()
        self._leaf, self._buffer, self._at, self._end = None, memoryview(b""), 0, 0


def claim_of(generation: str, owners: int) -> str:
    """The claim on being the next to write this answer, when so many others have written it."""
    return f"{generation}.{owners}"


def claim_of_key(digest: str) -> str:
    """The claim on beginning the answer to this idempotency key."""
    return f"key-{digest}"
