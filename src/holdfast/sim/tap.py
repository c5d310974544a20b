"""A tap on a replica's connections: between socket and server, where a network misbehaves.

Everything here happens to bytes, below any protocol, so that neither the server nor its peers can tell it from the real
thing: a reset is a reset, a half-open connection is a socket that stays and says nothing.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import cast

UNREAD_S = 0.12  # longer than a gateway's ping takes to come round: what is left unread makes a close a reset (unix(7))
SWALLOWED_BYTES = 8 * 1024 * 1024


def garbage(seed: int) -> bytes:
    """Bytes that no replica would send. Three kinds in turn: noise; a frame of noise, with its right length; the head of a
    frame of 8 MiB that never comes, so that all true frames after it are taken for its body."""
    noise = b"".join(hashlib.blake2b(f"{seed} {n}".encode()).digest() for n in range(4))
    if seed % 3 == 0:
        return noise
    if seed % 3 == 1:
        return len(noise).to_bytes(4, "little") + noise
    return SWALLOWED_BYTES.to_bytes(4, "little") + noise


class Wire(asyncio.Protocol, asyncio.Transport):
    """Protocol to the socket, transport to the server's connection `inner`."""

    def __init__(self, inner: asyncio.Protocol, wires: "set[Wire]") -> None:
        super().__init__()
        self.inner = inner
        self._wires = wires
        self._socket: asyncio.Transport | None = None
        self._mute = False

    @property
    def who(self) -> str:
        """How the peer has introduced itself to the server; empty before that."""
        return str(getattr(self.inner, "who", ""))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._wires.add(self)
        self.inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if not self._mute:
            self.inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wires.discard(self)
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._socket is not None:
            self._socket.set_write_buffer_limits(high=high, low=low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._socket is not None and not self._mute:
            self._socket.write(data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    @property
    def muted(self) -> bool:
        """Whether it is half-open now."""
        return self._mute

    def mute(self, wanted: bool) -> None:
        """Read nothing and say nothing, or do so again."""
        if self._socket is None or wanted == self._mute:
            return
        self._mute = wanted
        if wanted:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()

    def hold(self) -> None:
        """Read nothing more, so that bytes of the peer's lie unread when the socket is closed."""
        if self._socket is not None and not self._mute:
            self._socket.pause_reading()


class Tap:
    """`Tap()(connection)` is what the server's listener is given instead of `connection`. The rest may be called by any
    thread but the loop's own: it waits until the loop has done it, and returns the moment, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._wires: set[Wire] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, inner: asyncio.Protocol) -> asyncio.Protocol:
        self._loop = asyncio.get_running_loop()
        return Wire(inner, self._wires)

    @property
    def connections(self) -> int:
        """How many are open, half-open ones left out."""
        return sum(1 for wire in tuple(self._wires) if not wire.muted)

    def reset(self) -> float:
        """Close every connection with bytes of the peer's unread: the peer gets ECONNRESET."""
        self._each(Wire.hold)
        time.sleep(UNREAD_S)
        return self._each(Wire.abort)

    def mute(self, wanted: bool, spared: str = "") -> float:
        """Half-open: the connections are kept and never served again; new ones are not concerned, nor those of peers whose name
        begins with `spared`, if that is given."""
        return self._each(lambda wire: wire.mute(wanted), spared)

    def soil(self, seed: int) -> float:
        """Send garbage on every connection, then go on as before."""
        return self._each(lambda wire: wire.write(garbage(seed)))

    def _each(self, deed: Callable[[Wire], None], spared: str = "") -> float:
        if self._loop is None:
            return time.monotonic()

        async def done() -> float:
            for wire in tuple(self._wires):
                if not spared or not wire.who.startswith(spared):
                    deed(wire)
            return time.monotonic()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result()
