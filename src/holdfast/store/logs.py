"""The logs of the children: what a dead one said last is usually why it died."""

import re
from pathlib import Path

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} holdfast\.")  # host/discretion.py's form


def last_words(log: Path) -> str:
    """The last line of a log that is no record of the logger, without the name of the program that said it.

    A process that ends tells why, and what it lets go of is recorded after that.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    said = [line for line in lines if not RECORD.match(line)] or lines
    words = said[-1].strip() if said else ""
    head, colon, rest = words.partition(": ")
    return rest if colon and head.startswith("holdfast") else words
