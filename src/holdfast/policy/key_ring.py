"""Keys, made and unmade: what a command makes of a ring, or why it is refused.

A name has at most two live keys: the one in use and the one that takes its place. So a rotation has an end, and nobody collects
keys that nobody knows. A key that was revoked stays in the ring, so that it can be told from one that never was.
"""

import re

from msgspec import Struct, structs

from holdfast.domain.key import ID, KeyEntry, KeyRing, Scope, digest_of
from holdfast.domain.settings_text import MEMBER

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LIVE_MAX = 2
KEPT_DEAD_S = 365 * 86400.0  # an expired or revoked key is forgotten after this; its id stays among the revoked


class Changed(Struct, frozen=True):
    """The ring as it is to be, whom that concerns, and a sentence."""

    ring: KeyRing
    entries: tuple[KeyEntry, ...]
    why: str


class Denied(Struct, frozen=True):
    """Nothing is changed. The sentence names what to do instead."""

    why: str


class Wanted(Struct, frozen=True, kw_only=True):
    """A new key: for whom, to do what, until when (0: for ever)."""

    name: str
    tenant: str
    scopes: tuple[Scope, ...] = (Scope.CHAT,)
    until_unix_s: float = 0.0


def _live(ring: KeyRing, name: str, unix_s: float) -> tuple[KeyEntry, ...]:
    return tuple(one for one in ring.keys if one.name == name and one.live(unix_s))


def create(ring: KeyRing, wanted: Wanted, key: str, unix_s: float) -> Changed | Denied:
    """Add the first key of a name."""
    if not NAME.fullmatch(wanted.name):
        return Denied(f"{wanted.name!r} is no name for a key: 1 to 64 letters, digits, dots, dashes, @ or underscores")
    if not MEMBER.fullmatch(wanted.tenant):
        return Denied(f"{wanted.tenant!r} is no tenant: 1 to 64 lower-case letters, digits, dashes, dots")
    if _live(ring, wanted.name, unix_s):
        return Denied(f"{wanted.name} has a key already: holdfast key rotate {wanted.name} makes the next one")
    if wanted.until_unix_s and wanted.until_unix_s <= unix_s:
        return Denied("it would have expired already: choose a later time")
    return _added(ring, wanted, key, unix_s)


def rotate(ring: KeyRing, name: str, key: str, grace_s: float, unix_s: float) -> Changed | Denied:
    """Add a second key with the rights of the first, which lives for another `grace_s`."""
    live = _live(ring, name, unix_s)
    if not live:
        return Denied(f"{name} has no live key: holdfast key create {name}")
    if len(live) >= LIVE_MAX:
        ids = " or ".join(one.id for one in live)
        return Denied(f"{name} has two live keys already: revoke one of them first (holdfast key revoke {ids})")
    old, end = live[0], unix_s + grace_s
    until = min(end, old.until_unix_s) if old.until_unix_s else end
    span_s = old.until_unix_s - old.made_unix_s if old.until_unix_s else 0.0
    kept = tuple(structs.replace(one, until_unix_s=until) if one is old else one for one in ring.keys)
    wanted = Wanted(name=name, tenant=old.tenant, scopes=old.scopes, until_unix_s=unix_s + span_s if span_s else 0.0)
    return _added(structs.replace(ring, keys=kept), wanted, key, unix_s)


def revoke(ring: KeyRing, which: str, unix_s: float) -> Changed | Denied:
    """End a key by its id, or all live ones of a name. There is no way back."""
    found = tuple(one for one in ring.keys if which in (one.id, one.name) and not one.revoked_unix_s)
    if not found:
        known = any(which in (one.id, one.name) for one in ring.keys)
        return Denied(f"{which} is revoked already" if known else f"there is no key {which}: holdfast key list")
    dead = tuple(structs.replace(one, revoked_unix_s=unix_s) for one in found)
    by_id = {one.id: one for one in dead}
    keys = tuple(by_id.get(one.id, one) for one in ring.keys)
    opens = "opens" if len(dead) == 1 else "open"
    why = f"{', '.join(by_id)} {opens} nothing any more, and never will again"
    return Changed(_next(ring, keys, unix_s), dead, why)


def _added(ring: KeyRing, wanted: Wanted, key: str, unix_s: float) -> Changed:
    entry = KeyEntry(
        id=key[ID],
        name=wanted.name,
        tenant=wanted.tenant,
        scopes=tuple(sorted(set(wanted.scopes))),
        digest=digest_of(key, ring.salt),
        made_unix_s=unix_s,
        until_unix_s=wanted.until_unix_s,
    )
    after = _next(ring, (*ring.keys, entry), unix_s)
    return Changed(after, (entry,), f"{entry.id} opens {', '.join(entry.scopes)} for tenant {entry.tenant}")


def _next(ring: KeyRing, keys: tuple[KeyEntry, ...], unix_s: float) -> KeyRing:
    """The next version: never below the time, so that a ring that was begun anew is newer than any that was lost."""
    kept = tuple(one for one in keys if one.live(unix_s) or unix_s - _ended(one) < KEPT_DEAD_S)
    return structs.replace(ring, version=max(ring.version + 1, int(unix_s * 1000)), keys=kept)


def _ended(one: KeyEntry) -> float:
    return one.revoked_unix_s or one.until_unix_s
