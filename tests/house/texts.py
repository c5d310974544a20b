"""Rules for every text file: nothing in the tree may depend on, or speak of, the place where it was written."""

import re

PLACES = {
    "a path of the machine that this was written on": re.compile(r"(?<![\w.])/" + r"work/[a-z.]"),
    "a package index of somebody's own": re.compile(
        r"(?i)(--(extra-)?index-" + r"url|index_url\s*=|PIP_(EXTRA_)?INDEX_URL|--find-link[s])"
    ),
    "a host that only exists inside one network": re.compile(
        r"(?i)\b[\w-]+\.(internal|intranet|corp|lan|localdomain)\b(?!\.)"
    ),
    "somebody's home folder": re.compile(r"(?<![\w.])/(home|Users)/[a-z]+/"),
}
BINARY = (".safetensors", ".png", ".ico", ".gz", ".bin", ".woff2")


def placed(path: str, text: str) -> list[str]:
    """Mentions of the workplace, one sentence each."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in PLACES.items():
            match = pattern.search(line)
            if match:
                found.append(f"{path}:{number}: {match.group(0)!r} is {what}: a clone elsewhere has no such thing")
    return found
