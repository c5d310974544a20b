"""Protocol Buffers, as far as one dialect needs them: structs to bytes and back, by a table of field numbers. Pure.

The format is public (protobuf.dev/programming-guides/encoding). Generated code is tied to one version of its library, and
engines' clients ask for versions that do not go together; a table of names and numbers goes with all of them.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct

_M = TypeVar("_M", bound=Struct)
_MASK_64 = (1 << 64) - 1
_DOUBLE = struct.Struct("<d")
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5


class Garbled(ValueError):
    """Bytes that are no message of this kind."""


class Kind(Enum):
    """What a field holds; the plural ones are repeated. MAP has text keys and messages as values."""

    BOOL = "bool"
    INT = "int64"
    UINT = "uint64"
    DOUBLE = "double"
    TEXT = "string"
    BLOB = "bytes"
    MESSAGE = "message"
    INTS = "int64s"
    TEXTS = "strings"
    BLOBS = "bytes, repeated"
    MESSAGES = "messages"
    MAP = "map"


class Field(NamedTuple):
    """One field of a message: its number, the struct's attribute, and for messages of which kind they are."""

    number: int
    name: str
    kind: Kind
    of: "type[Struct] | None" = None


Tables = Mapping[type[Struct], tuple[Field, ...]]


class Codec:
    """Encodes and decodes the messages of one table. Fields that hold their default are not written, as proto3 has it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._by_number = {kind: {field.number: field for field in fields} for kind, fields in tables.items()}

    def encode(self, message: Struct) -> bytes:
        """The message's bytes."""
        out = bytearray()
        for field in self._tables[type(message)]:
            value = getattr(message, field.name)
            if value:
                self._write(out, field, value)
        return bytes(out)

    def decode(self, kind: type[_M], data: bytes) -> _M:
        """The message in these bytes; fields that the table does not know are passed over.

        Raises:
            Garbled: cut short, or not of this shape.
        """
        fields, told = self._by_number[kind], dict[str, Any]()
        for number, wire, value in _parts(data):
            field = fields.get(number)
            if field is not None:
                self._read(told, field, wire, value)
        return kind(**told)

    def _write(self, out: bytearray, field: Field, value: Any) -> None:
        kind, number = field.kind, field.number
        if kind in (Kind.BOOL, Kind.INT, Kind.UINT):
            out += _varint(number << 3 | _VARINT) + _varint(int(value) & _MASK_64)
        elif kind is Kind.DOUBLE:
            out += _varint(number << 3 | _FIXED_64) + _DOUBLE.pack(value)
        elif kind is Kind.INTS:
            _put(out, number, b"".join(_varint(one & _MASK_64) for one in value))
        elif kind is Kind.MAP:
            for key, one in value.items():
                entry = bytearray()
                _put(entry, 1, key.encode())
                _put(entry, 2, self.encode(one))
                _put(out, number, bytes(entry))
        else:
            repeated = kind in (Kind.TEXTS, Kind.BLOBS, Kind.MESSAGES)
            for one in value if repeated else (value,):
                body = one.encode() if isinstance(one, str) else one
                _put(out, number, body if isinstance(body, bytes) else self.encode(body))

    def _read(self, told: dict[str, Any], field: Field, wire: int, value: int | bytes) -> None:
        name, kind = field.name, field.kind
        if isinstance(value, int):
            if wire != _VARINT or kind not in _NUMBERS:
                raise Garbled(f"field {field.number} ({name}) has wire type {wire}")
            number = _NUMBERS[kind](value)
            if kind is Kind.INTS:
                told.setdefault(name, []).append(number)
            else:
                told[name] = number
        elif kind is Kind.DOUBLE and wire == _FIXED_64:
            told[name] = _DOUBLE.unpack(value)[0]
        elif wire != _LENGTH or kind in (Kind.BOOL, Kind.INT, Kind.UINT, Kind.DOUBLE):
            raise Garbled(f"field {field.number} ({name}) has wire type {wire}")
        elif kind is Kind.INTS:
            told.setdefault(name, []).extend(_signed(one) for one in _varints(value))
        elif kind is Kind.MAP:
            key, one = self._entry(field, value)
            told.setdefault(name, {})[key] = one
        elif kind in (Kind.TEXTS, Kind.BLOBS, Kind.MESSAGES):
            told.setdefault(name, []).append(self._whole(field, value))
        else:
            told[name] = self._whole(field, value)

    def _whole(self, field: Field, value: bytes) -> Any:
        if field.kind in (Kind.TEXT, Kind.TEXTS):
            return _text(value)
        return value if field.of is None else self.decode(field.of, value)

    def _entry(self, field: Field, value: bytes) -> tuple[str, Struct]:
        key, body = "", b""
        for number, _, part in _parts(value):
            if number == 1 and isinstance(part, bytes):
                key = _text(part)
            elif number == 2 and isinstance(part, bytes):
                body = part
        assert field.of is not None, f"the map {field.name} has no kind of value"
        return key, self.decode(field.of, body)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_NUMBERS: dict[Kind, Callable[[int], int]] = {Kind.BOOL: bool, Kind.INT: _signed, Kind.UINT: int, Kind.INTS: _signed}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Garbled(f"text that is not UTF-8: {error.reason}") from error


def _put(out: bytearray, number: int, body: bytes) -> None:
    out += _varint(number << 3 | _LENGTH) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _take(data: bytes, at: int) -> tuple[int, int]:
    """The varint that begins there, and where the next thing begins."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Garbled("a number that does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK_64, at
        shift += 7


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _take(data, at)
        yield value


def _parts(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field number, wire type, value): numbers of varints, bytes of all else."""
    at = 0
    while at < len(data):
        tag, at = _take(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _take(data, at)
            yield tag >> 3, wire, value
            continue
        if wire == _LENGTH:
            size, at = _take(data, at)
        elif wire in (_FIXED_64, _FIXED_32):
            size = 8 if wire == _FIXED_64 else 4
        else:
            raise Garbled(f"wire type {wire}")
        if at + size > len(data):
            raise Garbled(f"{size} bytes are announced and {len(data) - at} came")
        yield tag >> 3, wire, data[at : at + size]
        at += size
