"""The audit log: what operators did, one JSON object a line, each chained to the one before (policy/audit.py).

It is apart from the events log (what happened) and the access log (what was asked). Lines are only ever appended, are on the disk
before `append` returns, and are never rotated. Its head lies beside it.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.policy.audit import Broken, Entry, Head, Sound, digest, following, verify
from holdfast.store import snapshot


def head_of(path: Path) -> Path:
    return path.with_name(path.name + ".head")


class AuditLog:
    """`who` is written into each entry. Several processes may append: a lock puts them in order."""

    def __init__(self, path: Path, unix_s: Callable[[], float], who: str) -> None:
        self._path, self._unix_s, self._who = path, unix_s, who

    def append(self, act: str, what: dict[str, str] | None = None) -> Entry:
        """Write one entry down for good. Raises OSError: it is not recorded."""
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                return self._append(fd, act, what or {})
            finally:
                os.close(fd)
        finally:
            os.close(lock)

    def _append(self, fd: int, act: str, what: dict[str, str]) -> Entry:
        head, size = snapshot.take(head_of(self._path), Head) or Head(), os.fstat(fd).st_size
        begun = os.pread(fd, max(0, size - head.size_bytes), head.size_bytes)
        if begun and not begun.endswith(b"\n") and b"\n" not in begun:
            os.ftruncate(fd, head.size_bytes)  # a write of ours that a power cut tore: it was never answered for
            begun, size = b"", head.size_bytes
        lines = begun.split(b"\n")
        before = following(head, lines[0] if len(lines) == 2 else None)
        entry = Entry(
            number=before.number + 1,
            at=round(self._unix_s(), 3),
            who=self._who,
            act=act,
            what=what,
            before=before.digest,
        )
        line = msgspec.json.encode(entry)
        if os.write(fd, line + b"\n") <= len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, "the disk takes nothing more")
        os.fsync(fd)
        after = Head(number=entry.number, digest=digest(line), size_bytes=size + len(line) + 1)
        snapshot.write(head_of(self._path), msgspec.json.encode(after), lasting=True)
        return entry


def judged(path: Path, anchor: tuple[int, str] | None = None) -> Sound | Broken:
    """The log as it lies there. Raises OSError."""
    return verify(_bytes(path), snapshot.take(head_of(path), Head) if head_of(path).exists() else None, anchor)


def entries(path: Path) -> list[Entry]:
    """All that can be read of it, oldest first. Raises OSError."""
    found = []
    for line in _bytes(path).splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError:
            continue
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
