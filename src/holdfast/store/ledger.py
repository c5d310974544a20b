"""The ledger that the workers of one machine share: a file in memory, and no lock on a request's way.

Each account is a row of the file with two numbers for each worker, which that worker alone writes: how much it has ever used
(U), and how much inflow it has found to be beyond the burst (F). With the sum of all U and the largest of all F everybody
computes the same level at any moment:

    level(t) = burst + rate * t - sum(U) - max(F)        F is raised to rate * t - sum(U) where level would exceed the burst

That is the token bucket's own formula: what it would cut off at the burst is put into F, and since F only ever grows and the
largest counts, two workers that find the same excess at once do no harm. A row of zeros is a full bucket. Taking is: write
one's own U, look whether somebody else did so meanwhile, and take it back if both together are too much. So there is nothing
that a worker could hold while it is frozen or killed: whoever is gone simply uses nothing more.

Only finding a row for a name that is new on the machine needs a lock (fcntl's open-file-description locks, which the kernel
lets go with the process). It is asked for a bounded number of times; while somebody sits on it, a new account is kept by each
worker for itself, at the rate divided by the number of workers, and charged once the row can be had.
"""

import atexit
import fcntl
import hashlib
import mmap
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.domain.board import Ledger, Rate
from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock
from holdfast.domain.settings import Settings
from holdfast.policy.token_bucket import OwnLedger
from holdfast.store.folder import Folder
from holdfast.store.shared_ledger import Here, SharedLedger
from holdfast.store.shelf import FileShelf, shelf_folder

WORKERS_LEAST, ROWS_LEAST = 16, 256
TRIES = 1000  # for the lock, a system call and a yield each: about a millisecond
AGAIN_S = 1.0  # until a row that could not be had is asked for again, and the file is looked for in its place
UNUSED_S = 600.0  # a full account that nobody asked for so long may lose its row to a new one
_SPECK = 1e-6  # of one; see policy/token_bucket.py. The sums here are larger, so their rounding is too.

_WORD = 8
_HEAD_BYTES = 4096
_VERSION, _WORKERS, _ROWS, _WORKERS_EVER = (
    0,
    1,
    2,
    3,
)  # words of the head; the last: the highest worker's number so far, plus 1
_MARK = 0x0001_7265_6764_656C
_ID, _PER_S, _BURST, _TOUCHED = 0, 1, 2, 3  # words of a row; then U of each worker, then F of each worker
_ROW_HEAD = 4
_ROWS_LOCK = 1 << 40  # the byte whose lock is for giving out rows; those of the workers are bytes 0, 1, 2, ...
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux, fcntl(2)


def ledger_folder(root: Path) -> Path:
    """Where the ledger of the site with this state folder lies."""
    folder = shelf_folder("", root)
    return folder.with_name(f"{folder.name}.ledger")


@dataclass(slots=True)
class _Row:
    """One account as one worker knows it. Indexes are in words of the whole file."""

    rule: Rate
    id: int
    head: int
    used: int  # of the first worker; likewise the next
    spilt: int
    own_used: int
    own_spilt: int
    touched: float = 0.0


class _File:
    """The mapped file, and the number that this process has among the workers.

    Raises OSError: it can't be made or mapped, or all numbers are taken.
    """

    def __init__(self, path: Path, workers: int, rows: int) -> None:
        self.path, self.workers, self.rows = path, workers, rows
        size = _HEAD_BYTES + rows * (_ROW_HEAD + 2 * workers) * _WORD
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, size)
            self.map = mmap.mmap(self.fd, size)
        except OSError:
            os.close(self.fd)
            raise
        self.bytes = memoryview(self.map)
        self.ints, self.floats = self.bytes.cast("Q"), self.bytes.cast("d")
        try:
            self.number = self._find_place()
        except OSError:
            self.close()
            raise
        for word, value in ((_VERSION, _MARK), (_WORKERS, workers), (_ROWS, rows)):
            self.ints[word] = value
        self.ints[_WORKERS_EVER] = max(self.ints[_WORKERS_EVER], self.number + 1)

    def _find_place(self) -> int:
        for number in range(self.workers):
            if self.lock(number):
                return number
        raise OSError(f"{self.workers} workers share {self.path} already")

    def lock(self, at: int) -> bool:
        """Whether the byte's lock is ours now."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0))
        except BlockingIOError:
            return False
        return True

    def unlock(self, at: int) -> None:
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, at, 1, 0))

    def others(self) -> int:
        """How many other workers live."""
        found = 0
        for number in range(int(self.ints[_WORKERS_EVER])):
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
            answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, asked)
            found += _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK
        return found

    def in_place(self) -> bool:
        """Whether the file under our name is the one that we have mapped."""
        try:
            return self.path.stat().st_ino == os.fstat(self.fd).st_ino
        except OSError:
            return False

    def close(self) -> None:
        for view in (self.ints, self.floats, self.bytes):
            view.release()
        self.map.close()
        os.close(self.fd)


class FileLedger:
    """Implements Ledger for one of `workers` workers of the machine. It never waits and never raises.

    When the file can't be had each worker keeps `1 / workers` of every rate for itself; `sharing` says so.
    """

    def __init__(self, folder: Path, site: Path | None = None, workers: int = 1, accounts_max: int = 0) -> None:
        self._shelf = FileShelf(folder, site)
        self._workers = max(workers, 1)
        places = _ceiling(4 * self._workers, WORKERS_LEAST)  # an upgrade runs the new workers beside the old ones
        rows = _ceiling(2 * accounts_max, ROWS_LEAST)
        self._path = folder / f"accounts-{places}x{rows}"  # another shape is another file
        self._shape = places, rows
        self._rows: dict[str, _Row] = {}
        self._own = OwnLedger()
        self._shares: dict[str, Rate] = {}  # of accounts that have no row yet, or none at all
        self._again_at: dict[str, float] = {}
        self._file: _File | None = None
        self._why = ""
        self._look_at = 0.0
        self._reopen()

    def take(self, account: str, amount: float, rule: Rate, now: float) -> float:
        """See the port."""
        file, row = self._file, self._rows.get(account)
        if (
            file is None
            or row is None
            or (row.rule is not rule and row.rule != rule)
            or now > row.touched + AGAIN_S
            or file.ints[row.head] != row.id
        ):
            row = self._row(account, rule, now)
            file = self._file
            if row is None or file is None:
                return self._own.take(account, amount, self._share(account, rule), now)
        floats, burst, per_s = file.floats, rule.burst, rule.per_s
        ever = file.ints[_WORKERS_EVER]
        if ever == 1:  # one worker: by far the commonest, and slices cost more than all the rest
            used, spilt = floats[row.used], floats[row.spilt]
        else:
            used, spilt = sum(floats[row.used : row.used + ever]), max(floats[row.spilt : row.spilt + ever])
        level = burst + per_s * now - used - spilt
        if level > burst:
            floats[row.own_spilt] = per_s * now - used
            level = burst
        need = amount if amount < burst else burst
        if level + _SPECK < need:
            return (need - level) / per_s
        floats[row.own_used] += amount
        if ever > 1:
            again = sum(floats[row.used : row.used + ever]) - amount
            if again > used and level - (again - used) + _SPECK < need:
                floats[row.own_used] -= amount  # somebody was faster by a hair
                return (need - level + again - used) / per_s
        return 0.0

    def give(self, account: str, amount: float, rule: Rate, now: float) -> None:
        """See the port."""
        row = self._row(account, rule, now)
        if row is None or self._file is None:
            self._own.give(account, amount, self._share(account, rule), now)
        else:
            self._spill(self._file, row, now)
            self._file.floats[row.own_used] -= amount

    def level(self, account: str, rule: Rate, now: float) -> float:
        """See the port."""
        row = self._row(account, rule, now)
        if row is None or self._file is None:
            return self._own.level(account, self._share(account, rule), now)
        return self._spill(self._file, row, now)

    @property
    def sharing(self) -> str:
        """See the port."""
        if self._file is None:
            return f"alone, at 1/{self._workers} of each rate: {self._why}"
        kept = f"; {len(self._again_at)} accounts at 1/{self._workers}: {self._why}" if self._again_at else ""
        others = self._file.others()
        return f"workers: {others + 1} on this machine{kept}" if others or kept else "alone: one worker on this machine"

    def close(self) -> None:
        """Let go; the last one that does removes the folder."""
        file, self._file = self._file, None
        if file is not None:
            last = not file.others()
            file.close()
            if last:
                self._shelf.dissolve()
        self._rows.clear()
        self._why = "its ledger is closed"
        self._look_at = float("inf")

    @staticmethod
    def _spill(file: _File, row: _Row, now: float) -> float:
        """The level now; what has flowed in beyond the burst is put into F."""
        floats, ever, rule = file.floats, file.ints[_WORKERS_EVER], row.rule
        inflow = rule.per_s * now - sum(floats[row.used : row.used + ever])
        level = rule.burst + inflow - max(floats[row.spilt : row.spilt + ever])
        if level > rule.burst:
            floats[row.own_spilt] = inflow
            return rule.burst
        return level

    def _share(self, account: str, rule: Rate) -> Rate:
        """This worker's part of a rule, while it keeps the account for itself."""
        share = self._shares.get(account)
        if share is None or share.per_s != rule.per_s / self._workers:
            share = self._shares[account] = Rate(rule.per_s / self._workers, rule.burst / self._workers)
        return share

    def _row(self, account: str, rule: Rate, now: float) -> _Row | None:
        """The account's row; None while it can't be had. Once a second: mark it as used, and see whether the file is there."""
        if now >= self._look_at:
            self._look_at = now + AGAIN_S
            if self._file is None or not self._file.in_place():
                self._reopen()
        file, row = self._file, self._rows.get(account)
        if file is None:
            return None
        if row is not None and row.rule == rule and file.ints[row.head] == row.id:
            if now > row.touched + AGAIN_S:
                row.touched = file.floats[row.head + _TOUCHED] = now
            return row
        if now < self._again_at.get(account, 0.0):
            return None
        return self._open(file, account, rule, now)

    def _open(self, file: _File, account: str, rule: Rate, now: float) -> _Row | None:
        """Find or make the account's row, under the lock; what this worker has let by meanwhile is charged to it."""
        self._rows.pop(account, None)
        if not _patiently(lambda: file.lock(_ROWS_LOCK)):
            self._keep(account, now, "another worker sits on the ledger's lock")
            return None
        try:
            row = _find(file, account, rule, now)
        finally:
            file.unlock(_ROWS_LOCK)
        if row is None:
            self._keep(account, now, f"all {file.rows} rows of the ledger are taken")
            return None
        self._rows[account] = row
        if self._again_at.pop(account, None) is not None:
            share = self._share(account, rule)
            file.floats[row.own_used] += max(share.burst - self._own.level(account, share, now), 0.0)
        return row

    def _keep(self, account: str, now: float, why: str) -> None:
        self._again_at[account] = now + AGAIN_S
        self._why = why

    def _reopen(self) -> None:
        """Map the file, anew if somebody has removed it."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._rows.clear()
        try:
            self._shelf.claim("opening")  # makes the folder, or refuses one that is not ours alone
            self._shelf.remove("opening")
            for _ in range(2):
                file = _File(self._path, *self._shape)
                if file.in_place():
                    self._file = file
                    return
                file.close()  # the last worker before us removed it between our opening and our locking
            self._why = f"{self._path} does not stay in its place"
        except OSError as error:
            self._why = f"the ledger's file can't be used: {error.strerror or error}"


def open_ledger(
    settings: Settings, folder: Folder, clock: Clock, emit: Emit
) -> tuple[Ledger, Callable[[], Coroutine[Any, Any, None]] | None]:
    """The ledger that these settings ask for, and what must run beside it, if anything. It is closed at the process's end.

    Without [admission] shared_url it is shared by the workers of this machine, with it by several machines.

    Raises:
        BadSettings: shared_url is none, or the client library is missing.
    """
    accounts = 1 + 2 * (len(settings.tenants) + 1)
    mine = FileLedger(ledger_folder(folder.root), folder.root, settings.gateway.workers, accounts)
    url = settings.admission.shared_url
    atexit.register(mine.close)
    if not url:
        return mine, None
    machine = hashlib.sha256(f"{socket.gethostname()}:{folder.root}".encode()).hexdigest()[:12]
    worker = f"{machine}:{os.getpid()}"
    here = Here(site=settings.site.name, machine=machine, worker=worker, memory=folder.root / "machines.json")
    shared = SharedLedger(url, mine, emit, clock, here)
    return shared, shared.run


def _ceiling(least: int, floor: int) -> int:
    """The power of two that holds so many."""
    size = floor
    while size < least:
        size *= 2
    return size


def _patiently(ask: Callable[[], bool]) -> bool:
    """Ask a bounded number of times, leaving the processor to others in between."""
    for _ in range(TRIES):
        if ask():
            return True
        os.sched_yield()
    return False


def _find(file: _File, account: str, rule: Rate, now: float) -> _Row | None:
    """The row of an account under a rule, or the first free one behind its place; None when there is none."""
    name = f"{account}\0{rule.per_s!r}\0{rule.burst!r}".encode()
    id = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") | 1
    words = _ROW_HEAD + 2 * file.workers
    free = None
    for step in range(file.rows):
        head = _HEAD_BYTES // _WORD + (id + step) % file.rows * words
        row = _Row(rule, id, head, head + _ROW_HEAD, head + _ROW_HEAD + file.workers, 0, 0, now)
        there = file.ints[head]
        if there == id:
            return _ours(file, row)
        if free is None and (there == 0 or _unused(file, row, now)):
            free = row
        if there == 0:
            break
    if free is None:
        return None
    for word in range(free.used, free.head + words):
        file.floats[word] = 0.0
    file.floats[free.head + _PER_S], file.floats[free.head + _BURST] = rule.per_s, rule.burst
    file.ints[free.head] = id
    return _ours(file, free)


def _ours(file: _File, row: _Row) -> _Row:
    row.own_used, row.own_spilt = row.used + file.number, row.spilt + file.number
    file.floats[row.head + _TOUCHED] = row.touched
    return row


def _unused(file: _File, row: _Row, now: float) -> bool:
    """Whether a row's account is full and nobody has asked for it lately."""
    if now - file.floats[row.head + _TOUCHED] < UNUSED_S:
        return False
    rate, burst = file.floats[row.head + _PER_S], file.floats[row.head + _BURST]
    used = sum(file.floats[row.used : row.used + file.workers])
    return burst + rate * now - used - max(file.floats[row.spilt : row.spilt + file.workers]) >= burst
