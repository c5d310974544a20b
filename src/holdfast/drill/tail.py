"""What a site says of itself while a drill goes on: its events log, read as it grows."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import msgspec


class Tail:
    """Each `more()` gives the events that were written since the last one, across the log's rotation and its removal.

    The file is held open, so that its end can still be read after it was put aside. Close it in the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self.more()

    def more(self) -> list[dict[str, Any]]:
        """New events as plain objects, oldest first; unreadable lines are left out."""
        *lines, self._rest = (self._rest + self._read()).split(b"\n")
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.MsgspecError:
                continue
        return found

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> bytes:
        data = self._file.read() if self._file is not None else b""
        try:
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                another = self._path.open("rb")
                self.close()
                self._file = another
                data += another.read()
        except FileNotFoundError:
            return data
        return data
