"""The file of an access log: one writer, bounded by rotation into one older file."""

import os
from pathlib import Path

ROTATE_BYTES = 64 * 1024 * 1024


class AccessFile:
    """Appends whole lines. A disk that takes nothing more costs lines, and no request. Raises OSError where it can't be made."""

    def __init__(self, path: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._path, self._rotate_bytes = path, rotate_bytes
        self._fd, self._size, self.lost = -1, 0, 0
        self._open()

    def write(self, line: bytes) -> None:
        try:
            if self._size + len(line) > self._rotate_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self.close()
                self._open()
            self._size += os.write(self._fd, line)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
