"""The audit log, judged: whether a chain of entries is whole.

Each line holds the digest of the line before it, so a line that was changed, taken out or put in breaks the chain after it. The
head, which is written after each line, says how many there are and how the last one ends: so the end can't be cut off unseen.
Whoever may write both can make a new chain; an anchor (a number and a digest, kept elsewhere) finds that too.
"""

from hashlib import sha256

import msgspec
from msgspec import Struct

BEGINNING = "0" * 64


class Entry(Struct, frozen=True, kw_only=True):
    """Who did what, when. `before` is the digest of the line before it. Never a key, never a word of a request."""

    number: int
    at: float
    who: str
    act: str
    what: dict[str, str] = {}
    before: str = BEGINNING


class Head(Struct, frozen=True, kw_only=True):
    """The last line: its number, its digest, and how long the log is with it."""

    number: int = 0
    digest: str = BEGINNING
    size_bytes: int = 0


class Sound(Struct, frozen=True):
    """The chain is whole."""

    head: Head
    why: str


class Broken(Struct, frozen=True):
    """It is not, and where."""

    why: str


def digest(line: bytes) -> str:
    """Of one line, without its end."""
    return sha256(line).hexdigest()


def verify(log: bytes, head: Head | None, anchor: tuple[int, str] | None = None) -> Sound | Broken:
    """Judge a whole log, its head (None: there is none), and an anchor of before."""
    if log and not log.endswith(b"\n"):
        return Broken("the last line has no end: it was cut, or a write was interrupted")
    lines = log.split(b"\n")[:-1]
    before, digests = BEGINNING, {0: BEGINNING}
    for number, line in enumerate(lines, 1):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Broken(f"line {number} is not an entry")
        if entry.number != number:
            return Broken(f"line {number} says that it is number {entry.number}: lines are missing, or were put in")
        if entry.before != before:
            return Broken(f"line {number} does not follow from the line before it: one of the two was changed")
        before = digests[number] = digest(line)
    return _ended(Head(number=len(lines), digest=before, size_bytes=len(log)), head, digests, anchor)


def _ended(found: Head, head: Head | None, digests: dict[int, str], anchor: tuple[int, str] | None) -> Sound | Broken:
    if anchor is not None and digests.get(anchor[0]) != anchor[1]:
        return Broken(f"entry {anchor[0]} is not the one of the anchor: the log was written anew since")
    if head is None:
        if found.number:
            return Broken("the head is missing: whether the end of the log was cut can't be told")
        return Sound(found, "nothing was recorded yet")
    if head.number > found.number:
        return Broken(f"the log ends with entry {found.number}, its head knows {head.number}: the end was cut")
    if digests.get(head.number) != head.digest:
        return Broken(f"entry {head.number} is not the one that the head knows: it was changed, or the head was")
    if found.number > head.number + 1:
        return Broken(
            f"there are {found.number} entries, and the head knows {head.number}: some were put in at the end"
        )
    if head == found:
        return Sound(
            found, f"{found.number} {'entry' if found.number == 1 else 'entries'}, none changed, missing or put in"
        )
    if head.number == found.number:
        return Broken("the head knows another length of the log: it was changed")
    return Sound(found, f"{found.number} entries; the writer of the last was interrupted before the head knew it")


def following(head: Head, last: bytes | None) -> Head:
    """What the next entry follows: the head, or the line behind it whose writer was interrupted before the head knew it."""
    if last is None:
        return head
    try:
        entry = msgspec.json.decode(last, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return head
    if entry.number == head.number + 1 and entry.before == head.digest:
        return Head(number=entry.number, digest=digest(last), size_bytes=head.size_bytes + len(last) + 1)
    return head
