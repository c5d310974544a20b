"""The release digest: equal for two replicas exactly when one may continue the other's answers.

SHA-256 over the engine's build, torch's version, the processor features that pick its kernels, the type of the arithmetic,
and the files that decide tokens (policy/model_digest.py says which bytes of them count).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from holdfast.pearl.matrix import packing_works
from holdfast.pearl.options import CoreOptions
from holdfast.policy.model_digest import FILES, PATTERNS, File, digests


class Digests(NamedTuple):
    """`release`: of everything. `weights`: of the files alone, equal for other engines on the same folder."""

    release: str
    weights: str


def release_digests(model_dir: Path, build: str, options: CoreOptions) -> Digests:
    """Hexadecimal SHA-256. Slots, chunks, queue and threads are left out: they change no token."""
    device = torch.device(options.device)
    kernels = "packed" if packing_works(device) else "plain"
    processor = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type
    beginning = f"{build}|torch {torch.__version__}|{processor}|{kernels}|{options.dtype}".encode()
    return Digests(*digests(_files(model_dir), beginning, b""))


def weights_digest(model_dir: Path) -> str:
    """Hexadecimal SHA-256 of the files alone. Raises OSError."""
    return digests(_files(model_dir), b"")[0]


def _files(model_dir: Path) -> Iterator[File]:
    weights = [path for pattern in PATTERNS for path in sorted(model_dir.glob(pattern))]
    for path in (*(model_dir / name for name in FILES), *weights):
        if path.is_file():
            yield File(path.name, path.stat().st_size, partial(_read, path))


def _read(path: Path, at: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(count)
