"""The file of wishes (domain/wish.py): commands and the supervisor change it, one at a time, and read it at any time."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from holdfast.domain.wish import Wishes
from holdfast.store import snapshot


def read(path: Path) -> Wishes:
    """What is wished; nothing when there is no such file."""
    return snapshot.take(path, Wishes) or Wishes()


def change(path: Path, revise: Callable[[Wishes], Wishes]) -> Wishes:
    """Read, revise and write back, with nobody else in between. Returns what is wished now.

    An exception of `revise` leaves the file as it was. Raises OSError: it can't be written.
    """
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        before = read(path)
        after = revise(before)
        if after != before:
            snapshot.put(path, after)
    finally:
        os.close(fd)
    return after
