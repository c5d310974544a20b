"""Erasure: what the files of a site hold of one tenant is overwritten where it lies, and then it is gone.

Works beside a running site: journal records and lines of the access log become zeros and blanks in place, since others have these
files open. Nothing else holds anything of a tenant's requests: the ledger and the board count tokens, in memory.
"""

import fcntl
import mmap
import os
from collections import defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from holdfast.domain import journal
from holdfast.domain.erasure import Erased, erase
from holdfast.store import quarantine


def erase_journal(folder: Path, tenant: str) -> Erased:
    """From all sheets of a shelf (store/shelf.py), whoever wrote them. Raises OSError."""
    owners: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*")):
        owner, _, order = path.name.rpartition(".")
        if owner and order.isdigit():
            owners[owner].append(path)
    found = Erased()
    for paths in owners.values():
        one = _erase_owner(paths, tenant)
        found = Erased(found.answers + one.answers, found.running + one.running)
    return found


def _erase_owner(paths: list[Path], tenant: str) -> Erased:
    with ExitStack() as stack:
        sheets, alive = [], False
        for path in paths:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # its time was over just now
            stack.callback(os.close, fd)
            size = os.fstat(fd).st_size
            if not size:
                continue
            alive |= _held(fd)
            mapped = stack.enter_context(mmap.mmap(fd, size))
            buffer = stack.enter_context(memoryview(mapped))
            if journal.stamped(buffer):
                sheets.append(buffer)
        return erase(sheets, tenant, alive)


def _held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def erase_access(folder: Path, tenant: str) -> int:
    """From all access logs of a folder: their lines become blanks. Returns how many. Raises OSError."""
    count = 0
    for path in sorted(folder.glob("*.access.jsonl*")):
        with path.open("r+b", buffering=0) as file:
            data, at = file.read(), 0
            for line in data.splitlines(keepends=True):
                if _is_of(line, tenant):
                    os.pwrite(file.fileno(), b" " * (len(line) - 1), at)
                    count += 1
                at += len(line)
            os.fsync(file.fileno())
    return count


def _is_of(line: bytes, tenant: str) -> bool:
    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return False
    return said.get("tenant") == tenant


def erase_sentences(folder: Path, tenant: str) -> int:
    """From the quarantine: its requests may come again. Returns how many. Raises OSError."""
    theirs = [one for one in quarantine.sentences(folder, 0.0) if one.tenant == tenant]
    for one in theirs:
        path = folder / one.fingerprint
        with suppress(FileNotFoundError), path.open("r+b", buffering=0) as file:
            file.write(bytes(path.stat().st_size))
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)
    return len(theirs)
