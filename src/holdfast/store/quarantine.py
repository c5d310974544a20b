"""The quarantine folder of one machine: who is refused, and who is on trial. All gateway workers share it.

key             32 random bytes, for fingerprints: without it a fingerprint can't be compared with a guessed prompt
FINGERPRINT     one sentence: why, and until when its like is refused
cells/          places for one; a lock that dies with its holder, and the holder's name inside

Every worker keeps serving when the folder can't be written: what it knows itself still holds, the others just don't know it.
"""

import contextlib
import fcntl
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct

from holdfast.store import snapshot

LOOK_S = 0.1
SETTLED_S = 1.0  # a folder that was changed more recently is read again: its time is no finer than a clock tick
KEPT_CELLS_MAX = 64  # of engines that are dead: their names stay on the door for those who have not looked yet


class Sentence(Struct, frozen=True, kw_only=True):
    """One entry of the list, and whose request it was. Times are unix seconds."""

    fingerprint: str
    why: str
    at: float
    until_unix_s: float
    tenant: str = ""


def sentences(folder: Path, unix_s: float) -> list[Sentence]:
    """Who is refused now, the latest first."""
    if not folder.is_dir():
        return []
    found = [snapshot.take(path, Sentence) for path in folder.iterdir() if path.is_file() and path.name != "key"]
    kept = [one for one in found if one is not None and one.until_unix_s > unix_s]
    return sorted(kept, key=lambda one: one.at, reverse=True)


def forget(folder: Path, fingerprint: str) -> bool:
    """Let it in again. Returns whether it was refused. Raises OSError."""
    if fingerprint not in {one.fingerprint for one in sentences(folder, 0.0)}:
        return False
    (folder / fingerprint).unlink(missing_ok=True)
    return True


class QuarantineRegister:
    """The condemned, by fingerprint. `now` in seconds of any clock, `unix_s` in unix seconds."""

    def __init__(self, folder: Path, now: Callable[[], float], unix_s: Callable[[], float]) -> None:
        self._folder, self._now, self._unix_s = folder, now, unix_s
        self._known: dict[str, float] = {}
        self._own: dict[str, float] = {}  # not in the folder: it could not be written
        self._looked_at, self._seen = float("-inf"), 0
        self._key = _key(folder)

    def fingerprint(self, prompt_ids: list[int]) -> str:
        """The digest of a prompt under this machine's key: 24 hex digits."""
        packed = b",".join(b"%d" % one for one in prompt_ids)
        return blake2b(packed, key=self._key, digest_size=12).hexdigest()

    def condemned(self, anew: bool = False) -> Mapping[str, float]:
        """Everybody who is refused. The folder is looked at ten times a second at most, unless it has to be done `anew`, and
        read when it has changed."""
        now = self._now()
        if anew or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        return self._known

    def condemn(self, fingerprint: str, until_unix_s: float, why: str, tenant: str = "") -> None:
        """Refuse it from now on, on the whole machine where the folder can be written."""
        at = self._unix_s()
        sentence = Sentence(fingerprint=fingerprint, why=why, at=at, until_unix_s=until_unix_s, tenant=tenant)
        try:
            snapshot.put(self._folder / fingerprint, sentence)
        except OSError:
            self._own[fingerprint] = until_unix_s
        self._known = {**self._known, fingerprint: until_unix_s}

    def _look(self) -> None:
        unix_s = self._unix_s()
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return
        expired = any(until <= unix_s for until in self._known.values())
        if changed_ns == self._seen and not expired:
            return
        if abs(unix_s - changed_ns / 1e9) > SETTLED_S:
            self._seen = changed_ns
        self._own = {name: until for name, until in self._own.items() if until > unix_s}
        kept = {one.fingerprint: one.until_unix_s for one in sentences(self._folder, unix_s)}
        for name in self._known.keys() - kept.keys() - self._own.keys():
            _remove(self._folder / name)
        self._known = {**self._own, **kept}


class QuarantineCells:
    """Places for one, on the whole machine. See gateway/quarantine.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cells"
        self._held: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def enter(self, name: str, who: str) -> bool:
        """Take the place if it is free; where the folder can't be written, only this process is asked."""
        if name in self._held:
            return self._held[name][1] == who
        try:
            fd = self._lock(name)
        except OSError:
            fd = -1
        if fd is None:
            return False
        if fd >= 0:
            os.ftruncate(fd, 0)
            os.pwrite(fd, who.encode(), 0)
        self._held[name] = fd, who
        while len(self._held) > KEPT_CELLS_MAX:
            self.leave(next(iter(self._held)))
        return True

    def leave(self, name: str) -> None:
        """Free a place that this process holds."""
        fd, _ = self._held.pop(name, (-1, ""))
        if fd >= 0:
            _remove(self._path(name))
            os.close(fd)

    def inmate(self, name: str) -> str:
        """Who holds the place now, in whatever process."""
        if name in self._held:
            return self._held[name][1]
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 256, 0).decode("utf-8", "replace")
        finally:
            os.close(fd)
        return ""

    def _lock(self, name: str) -> int | None:
        """A descriptor that holds the place, or None if somebody else does. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(name)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    return fd
            os.close(fd)  # whoever left it took the file away after we had opened it

    def _path(self, name: str) -> Path:
        return self._folder / blake2b(name.encode(), digest_size=8).hexdigest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # a folder that can't be written: what is in it is read with its times


def _key(folder: Path) -> bytes:
    """The machine's key, made by whoever comes first; one of our own where it can't be kept."""
    path, fresh = folder / "key", secrets.token_bytes(32)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            draft = folder / f".key.{os.getpid()}"
            draft.unlink(missing_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(fresh)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink(missing_ok=True)
        return path.read_bytes()[:32] or fresh
    except OSError:
        return fresh
