"""The release digest: equal for two replicas exactly when one may continue the other's answers.

SHA-256 over the engine's build, torch's version, the processor features that pick its kernels, the type of the arithmetic,
and the files that decide tokens: configuration, tokenizer and weights. Weights of up to 1 GiB are read whole; of larger ones
the size, the header (every tensor's name, type and place) and 64 blocks of 1 MiB spread evenly, first and last included: a
swapped or truncated file is told, a flipped bit inside may not be (the loader's NaN check and the answers' gate stand there).
"""

import hashlib
from pathlib import Path

import torch

from holdfast.pearl.matrix import packing_works
from holdfast.pearl.options import CoreOptions

WHOLE_BYTES_MAX = 1 << 30
_BLOCK_BYTES = 1 << 20
_BLOCKS = 64
_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def release_digest(model_dir: Path, build: str, options: CoreOptions) -> str:
    """Hexadecimal SHA-256. Slots, chunks, queue and threads are left out: they change no token."""
    device = torch.device(options.device)
    kernels = "packed" if packing_works(device) else "plain"
    processor = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type
    digest = hashlib.sha256(f"{build}|torch {torch.__version__}|{processor}|{kernels}|{options.dtype}".encode())
    weights = sorted(model_dir.glob("*.safetensors")) + sorted(model_dir.glob("*.safetensors.index.json"))
    for path in [model_dir / name for name in _FILES] + weights:
        if path.is_file():
            digest.update(f"|{path.name}|{path.stat().st_size}|".encode())
            _feed(digest, path)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES_MAX:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
            return
        header = int.from_bytes(file.read(8), "little")
        digest.update(file.read(min(header, WHOLE_BYTES_MAX)))
        for n in range(_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * n // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
