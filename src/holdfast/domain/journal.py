"""The journal's records: bytes that are either whole or not believed.

A record is [u32 length][u32 crc][u8 kind][u32 stream][body]; `length` counts what follows the crc, and the crc is that of
these bytes, begun with `length`. A length of zero is where writing stands. Whatever does not check (a tail that was cut when
its writer died, a flipped bit) is where reading stops: nothing behind it is believed, because nobody can say where it begins.

A stream is one worker's part of one answer; its number is never used twice in a worker's life. Token records say at which token
they begin, so that a missing one is noticed too.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct

from holdfast.domain import fault as faults
from holdfast.domain.fault import BadRequest, Fault, Overloaded, Poisonous
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob

MAGIC = b"HFJRNL01"  # the last two digits are the format's version: another one is not read
START = 64  # where the first record of a sheet stands
BEAT_AT = 16
_BEAT = struct.Struct("<d")
_HEAD = struct.Struct("<II")
_TAG = struct.Struct("<BI")
_ALL = struct.Struct("<IIBI")
_ONE = struct.Struct("<BIII")
_ONE_WHOLE = struct.Struct(f"<II{_ONE.size}s")
ONE_BYTES = _ONE_WHOLE.size
TAG_BYTES = _TAG.size
FRAME_BYTES = _HEAD.size
UNREADABLE = (msgspec.MsgspecError, struct.error, UnicodeDecodeError, ValueError, IndexError)


class Damaged(ValueError):
    """A record whose checksum is right and whose body is not understood: written by another version."""


class Kind(IntEnum):
    """BEGIN: a stream, or the whole state of one anew. IDS: plain tokens. RICH: tokens with what hangs on them. END: finish or
    fault. LEFT: its writer stopped midway, because its reader went away; anybody may go on. ERASED: zeros (domain/erasure.py)."""

    BEGIN = 1
    IDS = 2
    RICH = 3
    END = 4
    LEFT = 5
    ERASED = 6


class Begun(Struct, frozen=True, array_like=True):
    """A stream's state at one moment: the generation without its API key, and all that was delivered so far.

    `owners` is how many others had written this answer before. `release` is the digest of what generates it.
    """

    id: str
    prompt_ids: list[int]
    sampling: Sampling
    max_tokens: int
    seed: int
    stop_ids: tuple[int, ...]
    deadline: float
    tenant: str
    idempotency: str
    note: bytes
    key_digest: bytes
    release: str
    owners: int = 0
    delivered_ids: list[int] = []
    rows: list[TokenLogprob] = []
    cached: int = 0
    moves: int = 0
    thinking_max: int = 0


class Rich(Struct, frozen=True, array_like=True):
    """Tokens from number `at` on, with logprobs, cached prompt tokens or a new count of moves."""

    at: int
    ids: list[int]
    rows: list[TokenLogprob] | None = None
    cached: int = 0
    moves: int = 0


class End(Struct, frozen=True, array_like=True):
    """How an answer ended: a finish, or a fault by its class's name with what its constructor takes."""

    finish: Finish | None = None
    fault: str = ""
    why: str = ""
    more: tuple[Any, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_FINISHED = {finish: _encode(End(finish)) for finish in Finish}
_begun = msgspec.msgpack.Decoder(Begun).decode
_rich = msgspec.msgpack.Decoder(Rich).decode
_end = msgspec.msgpack.Decoder(End).decode


def begun_of(generation: Generation, key_digest: bytes, release: str) -> Begun:
    """The first state of a stream."""
    g = generation
    return Begun(
        g.id, g.prompt_ids, g.sampling, g.max_tokens, g.seed, g.stop_ids, g.deadline, g.tenant, g.idempotency, g.note,
        key_digest, release, 0, g.delivered_ids, thinking_max=g.thinking_max,
    )  # fmt: skip


def generation_of(begun: Begun, delivered_ids: list[int]) -> Generation:
    """The generation that goes on after `delivered_ids`; its key is empty, for the journal knows none."""
    return Generation(
        id=begun.id,
        prompt_ids=begun.prompt_ids,
        sampling=begun.sampling,
        max_tokens=begun.max_tokens,
        seed=begun.seed,
        stop_ids=begun.stop_ids,
        deadline=begun.deadline,
        tenant=begun.tenant,
        delivered_ids=delivered_ids,
        idempotency=begun.idempotency,
        note=begun.note,
        thinking_max=begun.thinking_max,
    )


# writing


def _record(payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size, crc32(payload, size)) + payload


def begin_record(number: int, begun: Begun) -> bytes:
    """BEGIN; id and idempotency digest stand in front in plain bytes, so that an index needs to read no further."""
    name, digest = begun.id.encode(), begun.idempotency.encode()
    head = bytes((len(name), len(digest))) + name + digest
    return _record(_TAG.pack(Kind.BEGIN, number) + head + _encode(begun))


def ids_record(number: int, at: int, chunk: Chunk, plain: bool) -> bytes:
    """IDS, or RICH when more than tokens is to be kept."""
    ids = chunk.ids
    if plain:
        try:
            return _record(_TAG.pack(2, number) + struct.pack(f"<{1 + len(ids)}I", at, *ids))
        except struct.error:
            pass  # an id that no vocabulary has: keep it all the same
    rich = Rich(at, ids, chunk.logprobs, chunk.cached_tokens, chunk.moves)
    return _record(_TAG.pack(Kind.RICH, number) + _encode(rich))


def put_one(buffer: memoryview, at: int, number: int, first: int, token: int) -> bool:
    """Put the IDS of one plain token, by far the commonest, where it belongs: ONE_BYTES. False, and nothing is put, when it is an
    id that no vocabulary has."""
    try:
        payload = _ONE.pack(2, number, first, token)
    except struct.error:
        return False
    _ONE_WHOLE.pack_into(buffer, at, 13, crc32(payload, 13), payload)
    return True


def end_record(number: int, finish: Finish | None, fault: Fault | None = None) -> bytes:
    """END."""
    body = _encode(_ended(finish, fault)) if fault is not None or finish is None else _FINISHED[finish]
    return _record(_TAG.pack(4, number) + body)


def left_record(number: int) -> bytes:
    """LEFT."""
    return _record(_TAG.pack(Kind.LEFT, number))


def _ended(finish: Finish | None, fault: Fault | None) -> End:
    match fault:
        case None:
            return End(finish)
        case BadRequest(why=why, param=param, code=code):
            return End(None, "BadRequest", why, (param, code))
        case Overloaded(why=why, retry_after_s=after_s, status=status):
            return End(None, "Overloaded", why, (after_s, status))
        case Poisonous(why=why, fingerprint=fingerprint, until_unix_s=until):
            return End(None, "Poisonous", why, (fingerprint, until))
    return End(None, type(fault).__name__, fault.why)


def erased(number: int, size: int) -> bytes:
    """What stands in place of a record whose body had this size."""
    return _TAG.pack(Kind.ERASED, number) + bytes(size)


# reading


def records(buffer: memoryview, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Whole records from `at` on, as (kind, stream, where its body begins, where it ends), as far as they are believed."""
    limit = len(buffer)
    while at + _ALL.size <= limit:
        size, crc, kind, number = _ALL.unpack_from(buffer, at)
        end = at + 8 + size
        if size < TAG_BYTES or end > limit or crc32(buffer[at + 8 : end], size) != crc:
            return
        yield kind, number, at + 13, end
        at = end


def head_at(buffer: memoryview, at: int) -> tuple[int, int, int, int]:
    """(length, crc, kind, stream) of the record whose body begins at `at`."""
    return _ALL.unpack_from(buffer, at - _ALL.size)


def end_at(buffer: memoryview, at: int) -> int:
    """Where the record ends whose body begins at `at`."""
    end: int = at - TAG_BYTES + _ALL.unpack_from(buffer, at - _ALL.size)[0]
    return end


def names_of(buffer: memoryview, at: int) -> tuple[str, str]:
    """Of a BEGIN's body: the generation's id and its idempotency digest."""
    middle = at + 2 + buffer[at]
    return str(buffer[at + 2 : middle], "utf-8"), str(buffer[middle : middle + buffer[at + 1]], "utf-8")


def read_begin(buffer: memoryview, at: int, end: int) -> Begun:
    """Raises Damaged."""
    try:
        return _begun(buffer[at + 2 + buffer[at] + buffer[at + 1] : end])
    except UNREADABLE as error:
        raise Damaged(str(error)) from None


def read_tokens(buffer: memoryview, kind: int, at: int, end: int) -> Rich:
    """IDS or RICH. Raises Damaged."""
    try:
        if kind == Kind.RICH:
            return _rich(buffer[at:end])
        first, *ids = struct.unpack(f"<{(end - at) // 4}I", buffer[at:end])
        return Rich(first, ids)
    except UNREADABLE as error:
        raise Damaged(str(error)) from None


def read_end(buffer: memoryview, at: int, end: int) -> End:
    """Raises Damaged."""
    try:
        return _end(buffer[at:end])
    except UNREADABLE as error:
        raise Damaged(str(error)) from None


def fault_of(end: End) -> Fault | None:
    """The fault that ended an answer, made anew; None when it ended well."""
    kind = getattr(faults, end.fault, None) if end.fault else None
    if not end.fault:
        return None
    if not (isinstance(kind, type) and issubclass(kind, Fault)):
        return Fault(end.why)
    return kind(end.why, *end.more)


# the sheet's head


def stamp(buffer: memoryview, now: float) -> None:
    """Begin a sheet. The magic comes last: a sheet without it has no reader."""
    _BEAT.pack_into(buffer, BEAT_AT, now)
    buffer[: len(MAGIC)] = MAGIC


def stamped(buffer: memoryview) -> bool:
    """Whether this is a sheet of ours, of this version."""
    return len(buffer) > START and buffer[: len(MAGIC)] == MAGIC


def beat(buffer: memoryview, now: float) -> None:
    """Show that the writer's loop turns: `now` is CLOCK_MONOTONIC, which all processes of a machine share."""
    _BEAT.pack_into(buffer, BEAT_AT, now)


def last_beat(buffer: memoryview) -> float:
    """When its writer's loop last turned, in monotonic seconds."""
    found: float = _BEAT.unpack_from(buffer, BEAT_AT)[0]
    return found
