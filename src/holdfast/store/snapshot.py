"""Small files that are whole or absent: a reader sees the old content or the new one, never a piece of it."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file by atomic rename. The folder must exist. Raises OSError.

    There is no fsync: what lies here describes running processes, and is worth nothing after a power cut.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        scratch.rename(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def put(path: Path, value: msgspec.Struct) -> None:
    """Write a struct as JSON, by atomic rename."""
    write(path, msgspec.json.encode(value))


def take(path: Path, kind: type[T]) -> T | None:
    """Read a struct back; None when the file is absent or is not one of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
