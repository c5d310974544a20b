"""A model folder, as far as it decides tokens: what replicas of engines that are not ours tell of their weights.

Needs nothing but the standard library: such a replica has no torch. What counts is said in policy/model_digest.py, for these and
for the embedded engine alike, so engines of different kinds on one folder have equal digests.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from holdfast.policy.model_digest import FILES, PATTERNS, File, digests


def weights_of(model_dir: Path) -> str:
    """Hexadecimal SHA-256 of what decides tokens in this folder; empty where there is nothing of the kind. Raises OSError."""
    files = tuple(_files(model_dir))
    return digests(files, b"")[0] if files else ""


def _files(model_dir: Path) -> Iterator[File]:
    weights = [path for pattern in PATTERNS for path in sorted(model_dir.glob(pattern))]
    for path in (*(model_dir / name for name in FILES), *weights):
        if path.is_file():
            yield File(path.name, path.stat().st_size, partial(_read, path))


def _read(path: Path, at: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(count)
