"""Pulses: a sign of life that costs its giver one store to memory, and outlives nobody.

A gateway worker keeps eight bytes in an anonymous file of its own and writes the time into them at each look of its watch.
Whoever knows its pid and descriptor reads them through /proc, the supervisor after a restart too. There is no file to leave
behind, and no disk whose pause could stop the writer.
"""

import mmap
import os
import struct

_BEAT = struct.Struct("<d")


class Pulse:
    """This process's own. `path` is what others read; empty where the machine gives no memory files."""

    def __init__(self) -> None:
        self.path = ""
        self._map: mmap.mmap | None = None
        try:
            fd = os.memfd_create("holdfast-pulse", os.MFD_CLOEXEC)
            os.ftruncate(fd, _BEAT.size)
            self._map = mmap.mmap(fd, _BEAT.size)
        except OSError:
            return  # without a pulse this process is not judged by it
        self.path = f"/proc/{os.getpid()}/fd/{fd}"

    def beat(self, now: float) -> None:
        """Write the time down, in seconds of the monotonic clock."""
        if self._map is not None:
            _BEAT.pack_into(self._map, 0, now)


class Pulses:
    """Reads the pulses of others. A file is opened once, and let go when it can't be read any more."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def read(self, path: str) -> float | None:
        """Seconds of the monotonic clock at the last beat; None when there was none, or it can't be read."""
        if not path:
            return None
        try:
            fd = self._open.get(path)
            if fd is None:
                fd = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(fd, _BEAT.size, 0)
        except OSError:
            self._forget(path)
            return None
        at: float = _BEAT.unpack(data)[0] if len(data) == _BEAT.size else 0.0
        return at or None

    def keep(self, paths: set[str]) -> None:
        """Close all but these."""
        for path in [path for path in self._open if path not in paths]:
            self._forget(path)

    def _forget(self, path: str) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)
