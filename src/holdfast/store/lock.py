"""The lock: one supervisor a site. The kernel holds it, so it is gone the moment its holder is, however that died."""

import fcntl
import os
from pathlib import Path


class Taken(Exception):
    """Somebody else holds the lock."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the lock is held by process {pid}")
        self.pid = pid


class SiteLock:
    """Held from `take` to `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def hand_on(self) -> str:
        """Let the lock live through an exec of this process: the new image takes it with what is returned here."""
        os.set_inheritable(self._fd, True)
        return str(self._fd)

    def keep(self) -> None:
        """There was no exec after all."""
        os.set_inheritable(self._fd, False)

    def take(self, handed_on: str = "") -> None:
        """Take it, or go on with what an earlier image of this process has handed on.

        Raises Taken with the holder's pid (0 when it could not be read), or OSError.
        """
        if handed_on.isdigit() and _same_file(int(handed_on), self._path):
            self._fd = int(handed_on)
            self.keep()
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Taken(holder(self._path)) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go; does nothing when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _same_file(fd: int, path: Path) -> bool:
    try:
        ours, there = os.fstat(fd), path.stat()
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def holder(path: Path) -> int:
    """The pid that holds the lock, 0 when nobody does. Nothing is created."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0
