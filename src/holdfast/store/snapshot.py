"""Small files that are whole or absent: a reader sees the old content or the new one, never a piece of it.

What lies here describes running processes: who may take traffic, who listens where, what was started. A disk that takes nothing
more (full, read-only, broken) must not freeze that knowledge, or a site could no longer mend itself for want of a few hundred
bytes. So each file has a spare in memory: what can't be written in its place is written there, and whoever reads looks there
first. The next write that succeeds in its place removes the spare.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
MEMORY = Path("/dev/shm")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})  # a disk that takes nothing more


def write(path: Path, data: bytes, mode: int = 0o600, lasting: bool = False) -> None:
    """Replace the file by atomic rename; on a disk that takes nothing more, its spare. The folder must exist. Raises OSError.

    There is no fsync, unless it is to be `lasting`: most of what lies here describes running processes, and is worth nothing
    after a power cut.
    """
    try:
        _replace(path, data, mode, lasting)
    except OSError as error:
        if error.errno not in FULL:
            raise
        spares = spares_of(path.parent)
        _own(spares)
        _replace(spares / path.name, data, mode)
    else:
        (spares_of(path.parent) / path.name).unlink(missing_ok=True)


def put(path: Path, value: msgspec.Struct) -> None:
    """Write a struct as JSON, by atomic rename."""
    write(path, msgspec.json.encode(value))


def take(path: Path, kind: type[T]) -> T | None:
    """Read a struct back; None when the file is absent or is not one of ours."""
    spares = spares_of(path.parent)
    for place in (spares / path.name, path):
        try:
            if place is not path:
                _refuse_strange(spares)
            said = place.read_bytes()
        except OSError:
            continue
        try:
            return msgspec.json.decode(said, type=kind)
        except msgspec.MsgspecError:
            return None
    return None


def remove(path: Path) -> None:
    """Remove a file and its spare; one that a read-only disk holds on to becomes an empty spare, which reads as absent.

    Raises OSError.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
        write(path, b"null")
    else:
        (spares_of(path.parent) / path.name).unlink(missing_ok=True)


def listing(folder: Path) -> Iterator[Path]:
    """The files of a folder that end in .json, spare or not, by name."""
    names = {path.name for place in (folder, spares_of(folder)) for path in place.glob("*.json")}
    return (folder / name for name in sorted(names) if not name.startswith("."))


def spares_of(folder: Path) -> Path:
    """Where the spares of a folder's files lie; nothing is created. A folder that was made anew has other ones."""
    try:
        seen = folder.stat()
        which = f"{seen.st_dev}:{seen.st_ino}:{folder}"
    except OSError:
        which = str(folder)
    return MEMORY / f"holdfast-{os.getuid()}-spare" / hashlib.sha256(which.encode()).hexdigest()[:24]


def _own(spares: Path) -> None:
    """Make the folder, and see that it is ours: /dev/shm belongs to everybody. Raises OSError."""
    spares.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_strange(spares)


def _refuse_strange(spares: Path) -> None:
    """Who else could write there would choose our keys, and who takes our traffic. Raises OSError."""
    for place in (spares.parent, spares):
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "this folder is somebody else's", str(place))


def _replace(path: Path, data: bytes, mode: int, lasting: bool = False) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        scratch.rename(path)
        if lasting:
            _sync(path.parent)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """See that a rename outlives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
