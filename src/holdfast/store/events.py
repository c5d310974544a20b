"""The events log: one JSON object a line, stamped here with unix time, bounded by rotation into one older file."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from holdfast.domain.event import Event

ROTATE_BYTES = 4 * 1024 * 1024


class EventLog:
    """Appends events. A line is one write of less than a page, so that two writers don't tear each other's lines."""

    def __init__(self, path: Path, unix_s: Callable[[], float], rotate_bytes: int = ROTATE_BYTES) -> None:
        self._path = path
        self._unix_s = unix_s
        self._rotate_bytes = rotate_bytes

    def append(self, event: Event) -> Event:
        """Stamp the event, keep it, and return it as kept. Losing one to a full disk must not stop the site."""
        event = structs.replace(event, at=round(self._unix_s(), 3))
        line = msgspec.json.encode(event) + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(line)
                size = file.tell()
            if size > self._rotate_bytes:
                self._path.replace(_older(self._path))
        except OSError:
            return event
        return event


def recent(path: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` events as plain objects, oldest first; unreadable lines are left out."""
    lines: deque[bytes] = deque(maxlen=count)
    for file in (_older(path), path):
        try:
            lines.extend(file.read_bytes().splitlines())
        except OSError:
            continue
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.MsgspecError:
            continue
    return found


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")
