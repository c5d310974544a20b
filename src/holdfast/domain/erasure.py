"""Erasing a tenant's answers from the journal, in place, while others are read and written around them.

A record keeps its length, so that everything behind it is still found; what it held becomes zeros, and its checksum is made
right again. An answer that still runs is left alone: its owner would write it down once more.
"""

from collections.abc import Sequence
from zlib import crc32

from msgspec import Struct

from holdfast.domain import journal
from holdfast.domain.journal import START, Damaged, Kind


class Erased(Struct):
    """How many answers are gone, and how many still run."""

    answers: int = 0
    running: int = 0


def erase(sheets: Sequence[memoryview], tenant: str, alive: bool) -> Erased:
    """Erase a tenant's answers from all sheets of one worker. `alive`: the worker lives, so what has not ended runs on.

    What belongs to no beginning any more, whosever it was, nobody can read; it goes too.
    """
    begun: dict[int, bool] = {}  # by stream: whether it is this tenant's
    over: set[int] = set()
    for buffer in sheets:
        for kind, number, at, end in journal.records(buffer, START):
            if kind == Kind.BEGIN:
                begun[number] = begun.get(number, False) or _tenant(buffer, at, end) == tenant
            elif kind in (Kind.END, Kind.LEFT):
                over.add(number)
    theirs = {number for number, is_theirs in begun.items() if is_theirs}
    running = theirs - over if alive else set()
    for buffer in sheets:
        for kind, number, at, end in journal.records(buffer, START):
            if kind != Kind.ERASED and (number in theirs - running or number not in begun):
                _blank(buffer, number, at, end)
    return Erased(len(theirs - running), len(running))


def _tenant(buffer: memoryview, at: int, end: int) -> str:
    try:
        return journal.read_begin(buffer, at, end).tenant
    except Damaged:
        return ""


def _blank(buffer: memoryview, number: int, at: int, end: int) -> None:
    """Readers that come by meanwhile find a wrong checksum, and look again later."""
    payload = journal.erased(number, end - at)
    start = at - journal.TAG_BYTES
    buffer[start:end] = payload
    buffer[start - 4 : start] = crc32(payload, len(payload)).to_bytes(4, "little")
