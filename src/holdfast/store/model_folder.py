"""A model folder, as far as it decides tokens: what replicas of engines that are not ours tell of their weights.

Needs nothing but the standard library: such a replica has no torch. What counts is said in policy/model_digest.py, for these and
for the embedded engine alike, so engines of different kinds on one folder have equal digests.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from holdfast.policy.model_digest import FILES, PATTERNS, File, digests
from holdfast.store.gguf_head import ALL_F32, head_of

_PART = re.compile(r"-\d{5}(-of-\d{5}\.gguf)$")


def weights_of(model_dir: Path) -> str:
    """Hexadecimal SHA-256 of what decides tokens in this folder; empty where there is nothing of the kind. Raises OSError."""
    files = tuple(_files(model_dir))
    return digests(files, b"")[0] if files else ""


def gguf_of(model_dir: Path) -> list[Path]:
    """The files of the model that llama.cpp opens here: the first .gguf by name, with its other parts. None: an empty list."""
    first = next(iter(sorted(model_dir.glob("*.gguf"))), None)
    part = _PART.search(first.name) if first is not None else None
    if first is None or part is None:
        return [] if first is None else [first]
    stem = first.name[: part.start()]
    return [path for path in sorted(model_dir.glob("*.gguf")) if _PART.sub(r"\1", path.name) == stem + part[1]]


def gguf_weights_of(model_dir: Path, weights: str) -> str:
    """The digest of what llama.cpp computes with: `weights`, those of the folder, where its GGUF was written of them by `holdfast
    gguf` and keeps them as they are; else one of its own. Raises OSError."""
    paths = gguf_of(model_dir)
    if not paths:
        return weights
    head = head_of(paths[0])
    if head.file_type == ALL_F32 and head.made_of == weights:
        return weights
    return digests(_existing(paths), weights.encode())[0]


def _files(model_dir: Path) -> Iterator[File]:
    weights = [path for pattern in PATTERNS for path in sorted(model_dir.glob(pattern))]
    return _existing((*(model_dir / name for name in FILES), *weights))


def _existing(paths: Iterable[Path]) -> Iterator[File]:
    for path in paths:
        if path.is_file():
            yield File(path.name, path.stat().st_size, partial(_read, path))


def _read(path: Path, at: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(count)
