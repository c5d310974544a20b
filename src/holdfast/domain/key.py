"""API keys: what one looks like, what it may do, and what is kept of it.

    hfst_4fQ2kX9bLm_<43 characters of secret><6 of checksum>

The prefix is for secret scanners, the id between the underscores is no secret and may be told to anybody, the secret holds 256
bits, and the checksum (CRC-32 of all before it) tells a mistyped key from a wrong one. At rest there is only a keyed digest:
256 bits can't be guessed, so a slow hash would protect nothing more.
"""

import re
from enum import StrEnum
from hashlib import blake2b
from zlib import crc32

from msgspec import Struct

PREFIX = "hfst_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 10, 43, 6
ID_BITS, SECRET_BITS, SALT_BYTES = 59, 256, 32
FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{ID_CHARS}}}_[0-9A-Za-z]{{{SECRET_CHARS + CHECK_CHARS}}}")
ID = slice(len(PREFIX), len(PREFIX) + ID_CHARS)
DIGEST_BYTES = 32


class Scope(StrEnum):
    """What a key opens. CHAT: everything under /v1. METRICS: /metrics. ADMIN: the control plane, and its metrics."""

    CHAT = "chat"
    METRICS = "metrics"
    ADMIN = "admin"


class KeyEntry(Struct, frozen=True, kw_only=True):
    """One key as it is kept. Times are unix seconds; `until_unix_s` 0 is for ever, `revoked_unix_s` 0 is never."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    digest: bytes
    made_unix_s: float
    until_unix_s: float = 0.0
    revoked_unix_s: float = 0.0

    def live(self, unix_s: float) -> bool:
        """Whether it opens anything now."""
        return not self.revoked_unix_s and (not self.until_unix_s or unix_s < self.until_unix_s)


class KeyRing(Struct, frozen=True, kw_only=True):
    """All keys of a site. A later version is a higher number; `salt` keys the digests."""

    salt: bytes
    version: int = 0
    keys: tuple[KeyEntry, ...] = ()


class Looked(Struct, frozen=True):
    """What a look at the key file found: a ring, or none; `why` says what is wrong, empty when nothing is."""

    ring: KeyRing | None
    why: str = ""


def spelt(number: int, chars: int) -> str:
    """A number in 62 characters, with leading zeros."""
    found = ""
    for _ in range(chars):
        number, digit = divmod(number, len(ALPHABET))
        found = ALPHABET[digit] + found
    return found


def checksum(text: str) -> str:
    """Six characters that a slip of the finger changes."""
    return spelt(crc32(text.encode("utf-8", "surrogateescape")), CHECK_CHARS)


def spell_key(id_bits: int, secret_bits: int) -> str:
    """A key from random bits: ID_BITS and SECRET_BITS of them."""
    text = f"{PREFIX}{spelt(id_bits, ID_CHARS)}_{spelt(secret_bits, SECRET_CHARS)}"
    return text + checksum(text)


def complaint_of(key: str) -> str:
    """Why this can't be one of our keys, whoever holds it; empty when it can, or does not claim to be."""
    if not key.startswith(PREFIX):
        return ""
    if not FORM.fullmatch(key):
        return f"the API key is mistyped: one that begins with {PREFIX} has {len(spell_key(0, 0))} letters and digits"
    if checksum(key[:-CHECK_CHARS]) != key[-CHECK_CHARS:]:
        return "the API key is mistyped: its checksum is wrong; copy it again, whole"
    return ""


def digest_of(key: str, salt: bytes) -> bytes:
    """What is kept of a key."""
    return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES, key=salt).digest()
