"""The head of a GGUF file, as far as two questions go: in which numbers are its weights kept, and of which were they made?

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Writers put `general.*` before the
vocabulary's long arrays, and `holdfast gguf` its own key behind that; what comes behind an array is not looked for.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ALL_F32 = 0  # llama.cpp's LLAMA_FTYPE_ALL_F32
_FILE_TYPE, _MADE_OF = b"general.file_type", b"holdfast.weights"
_READ_BYTES = 64 * 1024
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its type


class Head(NamedTuple):
    """`file_type`: llama.cpp's number, None where the file does not say, or is none. `made_of`: the digest of the model folder
    that it was written from, where `holdfast gguf` has, else empty. What makes other numbers of a file keeps the second."""

    file_type: int | None = None
    made_of: str = ""


def head_of(path: Path) -> Head:
    """What the file says. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(_READ_BYTES)
    found = Head()
    try:
        for key, kind, at in _values(data):
            if key == _FILE_TYPE and kind == _UINT32:
                found = found._replace(file_type=int(struct.unpack_from("<I", data, at)[0]))
            elif key == _MADE_OF and kind == _STRING:
                found = found._replace(made_of=_text(data, at).decode("ascii", "replace"))
    except (struct.error, KeyError, OverflowError):
        pass  # it ends here, as far as it was read
    return found


def _values(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(key, type, place of the value) up to the first array."""
    magic, _, _, count = struct.unpack_from("<4sIQQ", data)
    at = 24
    for _ in range(count if magic == b"GGUF" else 0):
        key = _text(data, at)
        at += 8 + len(key)
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        if kind == _ARRAY:
            return
        yield key, kind, at
        at += 8 + len(_text(data, at)) if kind == _STRING else _SIZES[kind]


def _text(data: bytes, at: int) -> bytes:
    (length,) = struct.unpack_from("<Q", data, at)
    if at + 8 + length > len(data):
        raise struct.error("the text is cut")
    return data[at + 8 : at + 8 + length]
