"""Model digest: are two model folders the same model?

SHA-256 over the files that decide tokens besides the engine: configuration, tokenizer and weights. Weights of up to 1 GiB are
read whole; of larger ones the size, the header (every tensor's name, type and place) and 64 blocks of 1 MiB spread evenly, first
and last included: a swapped or truncated file is told, a flipped bit inside may not be (the loader's NaN check and the answers'
gate stand there). A GGUF does not say how long its header is: 32 MiB of it are read, several times a large vocabulary's.

Whoever has the files hands them in; which bytes count is said here alone, so that all engines on one folder agree.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256

from msgspec import Struct

WHOLE_BYTES_MAX = 1 << 30
BLOCK_BYTES = 1 << 20
BLOCKS = 64
GGUF_HEAD_BYTES = 32 << 20
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PATTERNS = ("*.safetensors", "*.safetensors.index.json")  # and after those above, in this order, by name within each


class File(Struct, frozen=True):
    """One file. `read(at, count)` gives so many bytes from there on, fewer at its end; raises OSError."""

    name: str
    size: int
    read: Callable[[int, int], bytes]


def digests(files: Iterable[File], *beginnings: bytes) -> tuple[str, ...]:
    """A hexadecimal SHA-256 of all of them for each beginning; they are read once. Raises OSError."""
    found = [sha256(beginning) for beginning in beginnings]
    for part in _parts(files):
        for one in found:
            one.update(part)
    return tuple(one.hexdigest() for one in found)


def _parts(files: Iterable[File]) -> Iterator[bytes]:
    """Each file's name and size, and the bytes of it that count."""
    for file in files:
        yield f"|{file.name}|{file.size}|".encode()
        if file.size <= WHOLE_BYTES_MAX:
            for at in range(0, file.size, BLOCK_BYTES):
                yield file.read(at, BLOCK_BYTES)
            continue
        gguf = file.name.endswith(".gguf")
        end = GGUF_HEAD_BYTES if gguf else 8 + min(int.from_bytes(file.read(0, 8), "little"), WHOLE_BYTES_MAX)
        for at in range(0 if gguf else 8, end, BLOCK_BYTES):
            yield file.read(at, min(BLOCK_BYTES, end - at))
        for n in range(BLOCKS):
            yield file.read((file.size - BLOCK_BYTES) * n // (BLOCKS - 1), BLOCK_BYTES)
