"""Accepting: takes connections from a listening socket that other workers accept from too, a few at each wake-up.

An event loop's own server accepts until the queue is empty, so the first of several workers to wake would take everything.
Here each takes at most ACCEPTS_MAX and then looks after its clients: a burst spreads over all of them, and over the quicker ones
more. Who is out of descriptors leaves the queue to the others until the door's next round.

Over TLS a client is nobody until its handshake is over: it has a deadline, and only so many may be at it, of one address fewer.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

ACCEPTS_MAX = 4
HANDSHAKES_MAX = 1024
HANDSHAKES_EACH_MAX = 128  # of one address: whoever only begins them can't keep everybody else out
FAREWELL_S = 5.0  # for a client to answer that it has heard the end


class Tls(Struct, frozen=True):
    """What a new connection is met with, asked each time, since it may change; and how long its handshake may take."""

    context: Callable[[], ssl.SSLContext]
    handshake_s: float


class Accepting:
    """Accepts from `begin` to `close`. The socket itself is not ours alone: closing it here ends nothing for the others."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: Tls | None = None
    ) -> None:
        self._listener, self._protocol, self._tls = listener, protocol, tls
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[object], str] = {}  # and the address that each is for
        self._shaking: Counter[str] = Counter()  # of each address
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
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was quicker, or the client has gone again
            except OSError:  # no descriptors, no memory: the queue stays readable, so we have to look away
                self._loop.remove_reader(self._listener)
                self._resting = True
                return
            address = str(peer[0]) if isinstance(peer, tuple) else ""
            if len(self._opening) >= HANDSHAKES_MAX or (address and self._shaking[address] >= HANDSHAKES_EACH_MAX):
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening[task] = address
            self._shaking[address] += 1
            task.add_done_callback(self._opened)

    def _open(self, connection: socket.socket) -> Coroutine[Any, Any, object]:
        tls = self._tls
        if tls is None:
            return self._loop.connect_accepted_socket(self._protocol, connection)
        return self._loop.connect_accepted_socket(
            self._protocol,
            connection,
            ssl=tls.context(),
            ssl_handshake_timeout=tls.handshake_s,
            ssl_shutdown_timeout=FAREWELL_S,
        )

    def _opened(self, task: "asyncio.Task[object]") -> None:
        address = self._opening.pop(task)
        self._shaking[address] -= 1
        if not self._shaking[address]:
            del self._shaking[address]
        if not task.cancelled() and isinstance(task.exception(), OSError):
            return  # reset before it was ours: the client has been told by its own kernel
        task.result()
