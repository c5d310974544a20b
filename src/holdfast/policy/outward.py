"""What of a foreign engine's complaint goes to who asked: its sentence, without where it runs and by which key.

Such a sentence begins with the address that our adapter gave it, and may quote others: the engine's own name for itself, or
that of a server behind it. Askers have no business there. Names of other machines are left, since a page of help has one too.
"""

import re

from holdfast.domain.settings_engine import URL

HIDDEN, ENGINE = "...", "the engine"
_SELVES = (
    "localhost",
    r"\d{1,3}(?:\.\d{1,3}){3}",
    r"\[(?=[^\]]*:[^\]]*:)[0-9A-Fa-f:.]+\]",  # two colons: [4096] and [1:2] are none
)  # every machine's own names, and bare addresses


def outward(said: str, url: str, key: str = "") -> str:
    """`said` with the engine's url as `the engine`, and as dots: its host and key, all addresses in figures, all ports that are
    called so or stand behind one of these. A host of letters only is a word like others, and found with its port alone."""
    said = without_key(said, key)
    base = url.rstrip("/").removesuffix("/v1")
    said = re.sub(rf"{re.escape(base)}(?![\w-]|\.\w)", ENGINE, said)
    place = URL.fullmatch(base)
    host = (place[2] or place[3]) if place is not None else ""
    own = re.escape(host) if host else r"(?!)"
    hosts = "|".join((own, *_SELVES))
    said = re.sub(
        rf"\b[a-z][a-z0-9+.-]*://(?:[^\s/@'\"]*@)?(?:{hosts})(?![\w-])[^\s'\"<>)]*", HIDDEN, said, flags=re.IGNORECASE
    )
    said = re.sub(rf"(?<![\w.-])(?:{hosts}):\d+\b", HIDDEN, said, flags=re.IGNORECASE)
    bare = "|".join((*((own,) if host and not host.isalpha() else ()), *_SELVES[1:]))
    said = re.sub(rf"(?<![\w.-])(?:{bare})(?![\w-]|\.\w)", HIDDEN, said)
    return re.sub(r"(?i)\b(port\W{0,3})\d+\b", rf"\1{HIDDEN}", said)


def without_key(said: str, key: str) -> str:
    """`said` with the key as dots, where it stands as a word."""
    return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", HIDDEN, said) if key else said
