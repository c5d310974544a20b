"""The front door: HTTP/1.1 for clients, over any service.

One sweep a tick looks at all connections, so that no request needs a timer of its own.
"""

import asyncio
import gc
import socket
import sys
from email.utils import formatdate

from holdfast.gateway.accepting import Accepting, Tls
from holdfast.gateway.buffers import Descriptors, cut_slowest
from holdfast.gateway.chat import Chat
from holdfast.gateway.connection import Connection, Hall
from holdfast.gateway.cors import Cors
from holdfast.gateway.incoming import Tick
from holdfast.gateway.metrics import DoorCollector, Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.pages import Pages
from holdfast.gateway.resumed import Resumed
from holdfast.gateway.tokens import Tokens
from holdfast.gateway.vitals import Vitals

TICK_S = 0.25  # deadlines are kept to within this
SWEPT_AT_ONCE = 128  # connections: a quarter of a millisecond
BACKLOG = 1024
TIDY_LOOKS = 120  # every half minute: some milliseconds, since what was there at the start is frozen


def settle() -> None:
    """Make a process that does nothing but serve cheaper by a tenth; call it once, inside its loop, before serving.

    What was loaded stays for good, so no collector need walk through it; requests make few cycles, so it need not come
    often. The loop keeps a weak set of all asynchronous generators in order to close forgotten ones at its end: every
    layer here closes its own.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.set_asyncgen_hooks(firstiter=None)
    sys.setswitchinterval(
        0.0005
    )  # a long prompt is tokenised in a thread: it may hold up the streams for half a millisecond


class Door:
    """Accepts connections and answers requests until it is drained."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self.tally = Tally()
        needs.registry.register(DoorCollector(self.tally))
        needs.registry.register(Vitals())
        chat = Chat(needs, self.tally)
        resumed = Resumed(needs, self.tally, chat)
        tokens = Tokens(needs).pages()
        pages = Pages(needs, chat.answer, resumed.answer, tokens, lambda: self._hall.draining)
        self._hall = Hall(limits=needs.limits, tally=self.tally, handle=pages.handle, tick=Tick(), access=needs.access)
        self._hall.cors = Cors(needs.cors) if needs.cors else None
        self._hall.lingering.linger_s = needs.linger_s
        if needs.streams is not None:
            self._hall.lingering.followed = needs.streams.followed.__getitem__
        self._descriptors = Descriptors(needs.descriptors, needs.limits.descriptors_share, needs.emit)
        self._servers: list[asyncio.Server | Accepting] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._looks = 0
        self._tick()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._hall.connections)

    async def serve(self, where: socket.socket | tuple[str, int], reuse_port: bool = True) -> tuple[str, int]:
        """Begin to accept on a listening socket or at (host, port); port 0 takes a free one. May be called again for more.

        A socket may be shared with other workers (gateway/accepting.py).

        Returns:
            The bound (host, port); for a unix socket (path, 0).

        Raises:
            OSError: the address can't be had.
        """
        loop, needs = asyncio.get_running_loop(), self._needs
        if needs.tls is not None and not isinstance(where, socket.socket):
            where = socket.create_server(where, backlog=BACKLOG, reuse_port=reuse_port)
        if isinstance(where, socket.socket):
            name = where.getsockname()
            tls = None if needs.tls is None else Tls(needs.tls, needs.limits.head_s)
            self._servers.append(Accepting(where, self.accept, tls))
        else:
            host, port = where
            server = await loop.create_server(self.accept, host, port, backlog=BACKLOG, reuse_port=reuse_port or None)
            name = server.sockets[0].getsockname()
            self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())
        return (name, 0) if isinstance(name, str) else (name[0], name[1])

    async def drain(self, grace_s: float) -> None:
        """Stop accepting, let running answers end for `grace_s`, then cut what is left. Idle connections are closed."""
        hall, clock = self._hall, self._needs.clock
        hall.draining = True
        for server in self._servers:
            server.close()
        give_up = clock.now() + grace_s
        while hall.connections and clock.now() < give_up:
            self._look()
            await clock.sleep(min(TICK_S, max(0.0, give_up - clock.now())))
        for connection in list(hall.connections):
            connection.abort()
        hall.lingering.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def accept(self) -> Connection:
        """The protocol of one new connection."""
        return Connection(self._hall)

    async def _sweep(self) -> None:
        """Round after round. Many connections are looked at some at a time, so that nobody's token waits for all of them."""
        clock, hall = self._needs.clock, self._hall
        while True:
            await clock.sleep(TICK_S)
            self._tick()
            everybody = list(hall.connections)
            for first in range(0, len(everybody), SWEPT_AT_ONCE):
                if first:
                    await clock.sleep(0)
                for connection in everybody[first : first + SWEPT_AT_ONCE]:
                    if not connection.lost:
                        connection.sweep()
            self._look_round()
            self._looks += 1
            if self._looks % TIDY_LOOKS == 0:
                gc.collect()  # answers that moved leave cycles behind (faults hold frames), and `settle` lets them lie for hours

    def _look(self) -> None:
        """One round over all connections, at once."""
        self._tick()
        for connection in list(self._hall.connections):
            connection.sweep()
        self._look_round()

    def _look_round(self) -> None:
        """At what concerns nobody alone."""
        hall = self._hall
        for server in self._servers:
            if isinstance(server, Accepting) and not hall.draining:
                server.look()
        self.tally.buffers_cut += cut_slowest(hall.connections, hall.limits, self._needs.emit)
        hall.crowded = self._descriptors.look()
        hall.lingering.sweep(hall.tick.now_s)

    def _tick(self) -> None:
        self._hall.tick.now_s = self._needs.clock.now()
        self._hall.date = f"date: {formatdate(self._needs.unix_s(), usegmt=True)}\r\n".encode()
