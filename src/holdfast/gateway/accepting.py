"""Accepting: takes connections from a listening socket that other workers accept from too, a few at each wake-up.

An event loop's own server accepts until the queue is empty, so the first of several workers to wake would take everything.
Here each takes at most ACCEPTS_MAX and then looks after its clients: a burst spreads over all of them, and over the quicker ones
more. Who is out of descriptors leaves the queue to the others until the door's next round.
"""

import asyncio
import socket
from collections.abc import Callable

ACCEPTS_MAX = 4


class Accepting:
    """Accepts from `begin` to `close`. The socket itself is not ours alone: closing it here ends nothing for the others."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener, self._protocol = listener, protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._resting = True
        listener.setblocking(False)
        self.look()

    def look(self) -> None:
        """Once a round: who had run out of descriptors tries again."""
        if self._resting:
            self._resting = False
            self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Leave the queue to the others."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._resting = False

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was quicker, or the client has gone again
            except OSError:  # no descriptors, no memory: the queue stays readable, so we have to look away
                self._loop.remove_reader(self._listener)
                self._resting = True
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[object]") -> None:
        self._opening.discard(task)
        if not task.cancelled() and isinstance(task.exception(), OSError):
            return  # reset before it was ours: the client has been told by its own kernel
        task.result()
