"""The logs of the children: what a dead one said last is usually why it died."""

from pathlib import Path


def last_words(log: Path) -> str:
    """The last line of a log, without the name of the program that said it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    words = lines[-1].strip() if lines else ""
    head, colon, rest = words.partition(": ")
    return rest if colon and head.startswith("holdfast") else words
