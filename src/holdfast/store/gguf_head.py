"""The head of a GGUF file, as far as one question goes: in which numbers are its weights kept?

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Writers put `general.*` before the
vocabulary's long arrays; what comes behind an array is not looked for.
"""

import struct
from pathlib import Path

ALL_F32 = 0  # llama.cpp's LLAMA_FTYPE_ALL_F32
_FILE_TYPE = b"general.file_type"
_READ_BYTES = 64 * 1024
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its type


def file_type_of(path: Path) -> int | None:
    """llama.cpp's number of the type; None where the file does not say, or is none. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_READ_BYTES)
    try:
        return _file_type(head)
    except (struct.error, KeyError, OverflowError):
        return None


def _file_type(head: bytes) -> int | None:
    magic, _, _, count = struct.unpack_from("<4sIQQ", head)
    if magic != b"GGUF":
        return None
    at = 24
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", head, at)
        key = head[at + 8 : at + 8 + length]
        at += 8 + length
        (kind,) = struct.unpack_from("<I", head, at)
        at += 4
        if key == _FILE_TYPE and kind == _UINT32:
            return int(struct.unpack_from("<I", head, at)[0])
        if kind == _ARRAY:
            return None
        at += 8 + struct.unpack_from("<Q", head, at)[0] if kind == _STRING else _SIZES[kind]
    return None
