"""The words that a gateway and a replica exchange, and their encoding. Pure: bytes in, frames out.

One connection a (worker, replica) pair carries all streams between them, and the replica sends one frame a step with the
tokens of all streams: at 32 streams that is a thirty-second of the system calls, and every frame is evidence of progress.
A frame is a 4-byte little-endian length and a MessagePack array whose first item is the tag. Ids, never text.

Dialogue: the gateway sends Hello; the replica answers Welcome; then Submit, Abort and Ping go up, Tokens, Failed and Pong
come down. Stream numbers are chosen by the gateway, unique for the connection's life. A replica answers a Ping between two
steps: an answer proves that its loop turns. Closing the connection aborts all its streams.
"""

import struct
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from holdfast.domain.ports import Produced, Work
from holdfast.domain.release import Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, Sampling, TokenLogprob

VERSION = 1
FRAME_BYTES_MAX = 16 * 1024 * 1024  # a 1M-token prompt of 3-byte ids fits five times
_HEAD = struct.Struct("<I")
# msgspec lets the last two through from text that is not UTF-8 and from arrays nested without end
_NONSENSE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class WireFault(ValueError):
    """The peer does not speak this protocol: garbage bytes, an unknown tag, a frame over the limit."""


class Hello(Struct, frozen=True, array_like=True, tag=0):
    version: int = VERSION
    who: str = ""


class Submit(Struct, frozen=True, array_like=True, tag=1):
    stream: int
    prompt_ids: list[int]
    delivered_ids: list[int]
    sampling: Sampling
    max_tokens: int
    seed: int
    stop_ids: tuple[int, ...]
    whole: bool = False  # nobody reads it as it comes: see [replica] batch_window_ms

    def work(self) -> Work:
        """The attempt without its stream number."""
        return Work(
            prompt_ids=self.prompt_ids,
            delivered_ids=self.delivered_ids,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            seed=self.seed,
            stop_ids=self.stop_ids,
        )


class Abort(Struct, frozen=True, array_like=True, tag=2):
    stream: int


class Ping(Struct, frozen=True, array_like=True, tag=3):
    nonce: int


class Welcome(Struct, frozen=True, array_like=True, tag=10):
    version: int
    boot: str  # changes with every start of the process
    pid: int
    release: Release
    load: Load
    context_tokens_max: int


class Item(Struct, array_like=True):
    """One stream's share of a step. `finish` is empty while it goes on. Without ids too: it makes again what was delivered."""

    stream: int
    ids: list[int]
    finish: Finish | None = None
    logprobs: list[TokenLogprob] | None = None
    cached_tokens: int = 0


class Tokens(Struct, array_like=True, tag=11):
    step: int
    items: list[Item]


class Failed(Struct, frozen=True, array_like=True, tag=12):
    """A stream ended without a finish. `kind`: refused (nothing generated), bad (the request is wrong), lost (midway),
    unrepeatable (likewise, and it was not the replica's fault: see EngineLost)."""

    stream: int
    kind: str
    why: str
    param: str | None = None
    code: str | None = None


class Pong(Struct, frozen=True, array_like=True, tag=13):
    nonce: int
    load: Load


Upward = Hello | Submit | Abort | Ping
Downward = Welcome | Tokens | Failed | Pong
_ENCODER = msgspec.msgpack.Encoder()
_UPWARD: msgspec.msgpack.Decoder[Upward] = msgspec.msgpack.Decoder(Upward)
_DOWNWARD: msgspec.msgpack.Decoder[Downward] = msgspec.msgpack.Decoder(Downward)


def encode(frame: Upward | Downward) -> bytes:
    """One frame, ready to write."""
    body = _ENCODER.encode(frame)
    return _HEAD.pack(len(body)) + body


class Cutter:
    """Cuts a byte stream into frame bodies. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Bodies that are complete after `data`.

        Raises:
            WireFault: a length over FRAME_BYTES_MAX.
        """
        rest = self._rest
        rest += data
        start, end = 0, len(rest)
        while end - start >= 4:
            (size,) = _HEAD.unpack_from(rest, start)
            if size > FRAME_BYTES_MAX:
                raise WireFault(f"a frame of {size} bytes is over the limit of {FRAME_BYTES_MAX}")
            if end - start - 4 < size:
                break
            yield bytes(rest[start + 4 : start + 4 + size])
            start += 4 + size
        del rest[:start]


def upward(body: bytes) -> Upward:
    """Decode what a gateway sent. Raises WireFault."""
    try:
        return _UPWARD.decode(body)
    except _NONSENSE as error:
        raise WireFault(f"not a frame of this protocol: {error}") from error


def downward(body: bytes) -> Downward:
    """Decode what a replica sent. Raises WireFault."""
    try:
        return _DOWNWARD.decode(body)
    except _NONSENSE as error:
        raise WireFault(f"not a frame of this protocol: {error}") from error


def item(stream: int, produced: Produced) -> Item:
    """A step's product as its stream's item."""
    return Item(stream, produced.ids, produced.finish, produced.logprobs, produced.cached_tokens)
