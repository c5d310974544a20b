"""Black boxes: what a process that died of its own fault left behind.

A replica opens a file at its start and writes its boot id on the first line. Whatever comes after that line was written while
it died: by faulthandler (a signal that the process raised itself, such as a segmentation fault) or by its own last act (an
exception out of the engine: its kind and place, never its message). Nothing after the line means that it was ended from
outside. Reading costs a few microseconds, so a gateway can ask in the moment in which a connection breaks.
"""

import faulthandler
import os
from pathlib import Path
from types import TracebackType

from holdfast.domain.last_words import told_of
from holdfast.store import snapshot

READ_BYTES_MAX = 4096


def begin(path: Path, boot: str) -> int:
    """Open a box for a new life; whatever was in it is gone. Returns a file descriptor to hand to faulthandler.

    On a disk that takes nothing more the box stays shut: a life without last words, and no reason not to live. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.write(fd, boot.encode() + b"\n")
    except OSError as error:
        if error.errno not in snapshot.FULL:
            raise
        return os.open(os.devnull, os.O_WRONLY)
    return fd


def black_box(path: str, boot: str) -> str:
    """The first line of what this life left behind; empty when it left nothing, or the box is of another life."""
    if not path:
        return ""
    try:
        with Path(path).open("rb", buffering=0) as file:
            said = file.read(READ_BYTES_MAX)
    except OSError:
        return ""
    head, _, rest = said.decode("utf-8", "replace").partition("\n")
    return rest.strip().partition("\n")[0] if head == boot else ""


class LastWords:
    """A replica's own box, open for its whole life. `with` it around the engine: what comes out as an exception is written down,
    before anybody else hears of it. Signals of its own making are written by faulthandler. Raises OSError."""

    def __init__(self, path: Path, boot: str) -> None:
        self._fd = begin(path, boot)
        faulthandler.enable(self._fd, all_threads=False)

    def __enter__(self) -> "LastWords":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            os.write(self._fd, f"{told_of(error)}\n".encode("utf-8", "replace"))
