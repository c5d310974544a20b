"""The key files of a site: commands change them one at a time, every gateway worker and the control plane look at them.

keys.json       all keys, as digests (domain/key.py)
keys.json.last  the same once more, for the day on which the first is damaged
keys.revoked    the ids that were revoked, one a line; it only grows

A key is revoked when its id stands in the last of these, whatever the others say: so neither a restart, nor an old copy of
keys.json that somebody brings back, makes a revoked key live again.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import structs

from holdfast.domain.key import SALT_BYTES, KeyRing, Looked
from holdfast.store import snapshot

Signature = tuple[tuple[int, int, int] | None, ...]


class KeyFiles:
    """`path` is that of keys.json. One reader: it remembers what it has read, and reads again when a file has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Signature | None = None
        self._looked = Looked(None)

    @property
    def last(self) -> Path:
        return self.path.with_name(self.path.name + ".last")

    @property
    def revoked(self) -> Path:
        return self.path.with_name("keys.revoked")

    def look(self) -> Looked:
        """All keys as they are now. A file that is damaged or gone is told, and its copy taken."""
        signature = tuple(_signature(one) for one in self._places())
        if signature != self._seen:
            self._looked, self._seen = self._read(), signature
        return self._looked

    def change(self, revise: Callable[[KeyRing], KeyRing]) -> KeyRing:
        """Read, revise and write back, with nobody else in between. An exception of `revise` leaves everything as it was.

        What was written outlives a power cut; on a disk that takes nothing more it holds until the machine restarts.

        Raises:
            OSError: it can't be written, or what is there can't be read.
        """
        fd = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            looked = self._read()
            if looked.ring is None and looked.why:
                raise OSError(
                    f"{looked.why}. Bring back a copy of it, or remove keys.json.last and keys.revoked too and make all keys anew"
                )
            before = looked.ring or KeyRing(salt=os.urandom(SALT_BYTES))
            after = revise(before)
            if after != before:
                known = {one.id for one in before.keys if one.revoked_unix_s}
                self._put(after, [one.id for one in after.keys if one.revoked_unix_s and one.id not in known])
            return after
        finally:
            os.close(fd)

    def _put(self, ring: KeyRing, dead: list[str]) -> None:
        """The list of the revoked first: cut short anywhere, no key is alive that was to be dead."""
        data = msgspec.json.encode(ring)
        full: OSError | None = None
        try:
            _append(self.revoked, dead)
        except OSError as error:
            if error.errno not in snapshot.FULL:
                raise
            full = error
        for place in (self.path, self.last):
            snapshot.write(place, data, lasting=True)
        if full is not None:
            raise OSError(
                full.errno, "the disk takes nothing: this holds until the machine restarts. Make room, and say it again"
            )

    def _read(self) -> Looked:
        ring, why = snapshot.take(self.path, KeyRing), ""
        if ring is None and any(place.exists() for place in self._places()):
            gone = "damaged" if self.path.exists() else "gone"
            ring, why = snapshot.take(self.last, KeyRing), f"the key file {self.path} is {gone}"
            if ring is not None:
                why += "; its copy is used"
        if ring is None:
            return Looked(None, why)
        dead = set(self._dead())
        keys = tuple(
            structs.replace(one, revoked_unix_s=one.made_unix_s) if one.id in dead and not one.revoked_unix_s else one
            for one in ring.keys
        )
        return Looked(structs.replace(ring, keys=keys), why)

    def _dead(self) -> list[str]:
        try:
            return self.revoked.read_text("ascii", "replace").split()
        except FileNotFoundError:
            return []

    def _places(self) -> tuple[Path, ...]:
        spares = snapshot.spares_of(self.path.parent)
        return (self.path, self.last, self.revoked, spares / self.path.name, spares / self.last.name)


def _append(path: Path, ids: list[str]) -> None:
    if not ids:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, "".join(f"\n{one}\n" for one in ids).encode())  # a line that was cut short spoils none of ours
        os.fsync(fd)
    finally:
        os.close(fd)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
