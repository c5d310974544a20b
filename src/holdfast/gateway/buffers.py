"""What clients may hold of a worker without reading: bytes, descriptors, and the work for those who were lost.

All of it is looked at by the door's sweep; nothing here costs a request anything.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from holdfast.domain.event import BufferFull, DescriptorsLow, Emit
from holdfast.gateway.needs import Limits

LOOK_EVERY = 4  # sweeps between two counts of descriptors


class Reader(Protocol):
    """One client, as the sweep sees it."""

    @property
    def unread_bytes(self) -> int: ...

    @property
    def generation(self) -> str: ...

    def abort(self) -> None: ...


class Lingering:
    """Work that goes on though its client is lost: it may come back for the answer. `followed` tells how many
    have."""

    def __init__(self) -> None:
        self.linger_s = 10.0
        self.followed: Callable[[str], int] = lambda generation: 0
        self._tasks: dict[asyncio.Task[None], tuple[str, float, int]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: asyncio.Task[None], generation: str, now: float, follows: bool) -> None:
        """Let it go on from now. `follows`: it counts among those who follow."""
        self._tasks[task] = (generation, now, int(follows))
        task.add_done_callback(self._over)

    def sweep(self, now: float) -> None:
        """Stop those whose time is over and whom nobody reads."""
        for task, (generation, since, itself) in list(self._tasks.items()):
            if now - since > self.linger_s and self.followed(generation) <= itself:
                task.cancel()

    def stop(self) -> None:
        """Stop all of it; the transcripts stay in the journal."""
        for task in self._tasks:
            task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # its fault is in the journal, for who asks for the answer again


def cut_slowest(readers: Iterable[Reader], limits: Limits, emit: Emit) -> int:
    """Cut those with the most unread bytes until all together are within the limit. Returns how many were cut."""
    held = [(size, one) for one in readers if (size := one.unread_bytes)]
    total = sum(size for size, _ in held)
    cut = 0
    if total <= limits.buffers_bytes_max:
        return cut
    for size, one in sorted(held, key=lambda row: -row[0]):
        if total <= limits.buffers_bytes_max:
            break
        why = f"all clients together leave {total} bytes unread, over the limit of {limits.buffers_bytes_max}"
        emit(BufferFull(generation=one.generation, held_bytes=size, why=why))
        one.abort()
        total -= size
        cut += 1
    return cut


class Descriptors:
    """Watches how many file descriptors are open. `count` tells that, and the limit."""

    def __init__(self, count: Callable[[], tuple[int, int]] | None, share: float, emit: Emit) -> None:
        self._count, self._share, self._emit = count, share, emit
        self._looks = 0
        self._why = ""

    def look(self) -> str:
        """Why no further connection is to be taken; empty when there is no reason."""
        self._looks += 1
        if self._count is None or self._looks % LOOK_EVERY != 1:
            return self._why
        used, limit = self._count()
        was, self._why = self._why, ""
        if used > self._share * limit:
            self._why = "Too many files and connections are open in this gateway; retry shortly."
            if not was:
                why = f"{used} of {limit} file descriptors are open: new connections are refused"
                self._emit(DescriptorsLow(open=used, limit=limit, why=why))
        return self._why
